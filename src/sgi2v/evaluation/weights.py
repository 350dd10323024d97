"""Reads the weights of measuring networks that the user brings: state dicts only, nothing in a file is executed."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sgi2v.errors import FieldError

_HINT = (
    'convert it where you trust it: python -c "import torch; from safetensors.torch import save_file; '
    "net = torch.jit.load('FILE', map_location='cpu'); "
    "save_file({k: v.contiguous().clone() for k, v in net.state_dict().items()}, 'weights.safetensors')\""
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a file."""

    tensors: dict[str, Tensor]
    sha256: str
    """SHA-256 of the file in hexadecimal digits: what was read, to be told beside every figure."""
    path: Path


def read_weights(path: Path, *, sha256: str | None = None) -> Weights:
    """The state dict in a file: safetensors, or what `torch.save` wrote, read without running anything in it.

    sha256: 64 hexadecimal digits that the file must have, checked before it is opened; None records the file's own.
    ValueError naming the file when it is absent, has another SHA-256, is a TorchScript archive (which is code), holds
    other things than tensors, or is damaged.
    """
    if not path.is_file():
        raise FieldError(str(path), "no such file", "give a file of weights")
    found = _digest(path)
    if sha256 is not None and found != sha256.strip().lower():
        raise FieldError(str(path), f"its SHA-256 is {found}, not {sha256}", "it is another file, or damaged")
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise FieldError(str(path), f"not a whole safetensors file ({error})", "fetch it again") from error
    else:
        tensors = _saved_by_torch(path)
    return Weights(tensors=tensors, sha256=found, path=path)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FieldError(str(path), f"cannot be read ({error})") from error


def _saved_by_torch(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.partition("/")[2] for name in archive.namelist()]
        except (zipfile.BadZipFile, OSError) as error:
            raise FieldError(str(path), f"a damaged file of weights ({error})", "fetch it again") from error
        # TorchScript keeps its constants and its code beside the tensors.
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise FieldError(str(path), "a TorchScript archive, which is code and is not run here", _HINT)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no pickle makes torch raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise FieldError(
            str(path),
            f"not a file of weights alone ({type(error).__name__}: {reason})",
            "save the network's state_dict() as safetensors",
        ) from error
    # Checkpoints often hold the state dict under a name.
    if isinstance(saved, dict) and isinstance(saved.get("state_dict"), dict):
        saved = saved["state_dict"]
    if not isinstance(saved, dict) or not saved:
        raise FieldError(str(path), f"holds a {type(saved).__name__}, not a state dict of named tensors")
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in saved.items()):
        raise FieldError(str(path), "holds other things than named tensors", "save the network's state_dict() alone")
    return {name.removeprefix("module."): value for name, value in saved.items()}


def load_strictly(network: nn.Module, weights: Weights, *, kind: str) -> None:
    """Put weights into a network, all of them and nothing else, and freeze it in float32.

    kind: what the network is, for the message. ValueError naming the file and the first names that are missing, too
    many, or of another shape.
    """
    own = network.state_dict()
    given = weights.tensors
    # A counter of training steps, which some files leave out.
    spared = {name for name in own if name.endswith("num_batches_tracked")}
    problems = []
    if missing := [name for name in own if name not in given and name not in spared]:
        problems.append(f"{len(missing)} weights are missing, first {', '.join(missing[:3])}")
    if foreign := [name for name in given if name not in own and not name.endswith("num_batches_tracked")]:
        problems.append(f"{len(foreign)} are of another network, first {', '.join(foreign[:3])}")
    shaped = [name for name in own if name in given and given[name].shape != own[name].shape]
    if shaped:
        first = shaped[0]
        problems.append(
            f"{len(shaped)} have another shape, first {first}: {tuple(given[first].shape)}, "
            f"not {tuple(own[first].shape)}"
        )
    if problems:
        raise FieldError(str(weights.path), f"not the weights of {kind}: {'; '.join(problems)}")
    network.load_state_dict({name: given.get(name, own[name]) for name in own})
    network.float().eval().requires_grad_(False)
