"""Checkpoints of a training: on the disk whole or not at all, refused where the settings differ; and small ones."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Final, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from sgi2v.errors import FieldError
from sgi2v.training.optimiser import MasterAdam, OptimiserState

Settings = Callable[[int], Mapping[str, object]]
"""All that decided the first so many steps of a training, as JSON values."""

_NEWEST: Final = "newest.pt"
_RENAMED: Final = (("lanes", "accumulation"),)
"""Former and present names of settings: older checkpoints are gone on from all the same."""
_PARTS: Final = "state-*.part"
_PART_BYTES: Final = 13_000_000


class Compact(TypedDict):
    """An optimiser's state in few bytes."""

    names: list[str]
    num_updates: int
    average: list[Tensor]
    away: NotRequired[list[Tensor]]
    """The weights' distance from their average; this and the rest only where the moments are kept."""
    adam: NotRequired[dict[int, dict[str, Tensor]]]
    cold_since: NotRequired[int | None]


class Checkpoint(TypedDict):
    """The content of a checkpoint's file: the optimiser's state as it is or, packed, in few bytes."""

    step: int
    settings: dict[str, object] | None
    optimiser: OptimiserState | None
    compact: NotRequired[Compact]


class Stopped(Exception):
    """A training was asked to end before its last step; all it has done is in its newest checkpoint."""

    def __init__(self, step: int, num_steps: int) -> None:
        super().__init__(f"stopped after step {step} of {num_steps}")
        self.step, self.num_steps = step, num_steps


def save_checkpoint(folder: Path, optimiser: MasterAdam, step: int, settings: Settings | None = None) -> Path:
    """Write the newest checkpoint of a folder; the last one is replaced when this one is whole and on the disk.

    settings: fields that a later run must agree with to go on from it. FieldError for weights that are no finite
    numbers: nothing is written then.
    """
    if not all(bool(torch.isfinite(value).all()) for value in optimiser.master):
        raise FieldError(
            "weights",
            f"are no finite numbers after step {step}",
            "go on from the newest checkpoint with a lower rate (lr)",
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NEWEST
    temporary = path.with_suffix(".part")
    known = None if settings is None else _plain(settings(step))
    saved: Checkpoint = {"step": step, "settings": known, "optimiser": optimiser.state()}
    with temporary.open("wb") as file:
        torch.save(saved, file)
        file.flush()
        os.fsync(file.fileno())  # else a crash of the machine could leave the new name with no content
    os.replace(temporary, path)
    return path


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a folder, or else what was packed there; None where there is neither.

    FieldError naming the folder for one that cannot be read.
    """
    path = folder / _NEWEST
    packed = sorted(folder.glob(_PARTS))
    if not path.exists() and not packed:
        return None
    try:
        source = path if path.exists() else io.BytesIO(_joined(packed))
        saved: Checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        reason = str(error).partition(".")[0]
        raise FieldError(
            "checkpoint", f"{folder} cannot be gone on from ({reason})", "delete it, or copy it again"
        ) from error
    settings = saved["settings"] or {}
    for former, present in _RENAMED:
        if former in settings:
            settings[present] = settings.pop(former)
    return saved


def begun_in(folder: Path) -> str | None:
    """The type in which the training of a folder began to compute; None where there is no checkpoint that says."""
    saved = read_checkpoint(folder)
    dtype = None if saved is None or saved["settings"] is None else saved["settings"]["dtype"]
    return None if dtype is None else str(dtype)


def load_checkpoint(folder: Path, optimiser: MasterAdam, settings: Settings | None = None) -> int:
    """Go on from the newest checkpoint of the folder; the number of steps done, 0 where there is none.

    FieldError naming the first field in which the checkpoint's settings differ from `settings`, or when it is of a
    network with other parameters.
    """
    saved = read_checkpoint(folder)
    if saved is None:
        return 0
    step, known = saved["step"], saved["settings"]
    differs = None if settings is None or known is None else difference(known, _plain(settings(step)))
    if differs is not None:
        name, theirs, mine = differs
        raise FieldError(
            name,
            f"the checkpoint in {folder} was trained with {theirs}, not {mine}",
            "give that value, or another output folder",
        )
    state = _expanded(saved["compact"], optimiser) if "compact" in saved else saved["optimiser"]
    assert state is not None
    optimiser.load_state(state)
    return step


def difference(theirs: object, mine: object, name: str = "settings") -> tuple[str, object, object] | None:
    """The first place in which two JSON values differ: its dotted name and both values; None where they are equal."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in sorted({*theirs, *mine}):
            inner = key if name == "settings" else f"{name}.{key}"
            if found := difference(theirs.get(key), mine.get(key), inner):
                return found
        return None
    if isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        pairs = enumerate(zip(theirs, mine, strict=True))
        return next((found for n, (a, b) in pairs if (found := difference(a, b, f"{name}.{n}"))), None)
    return None if theirs == mine else (name, theirs, mine)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over a network's parameters: says which weights a training started from, wherever their folder lies."""
    whole = hashlib.sha256()
    for name, value in network.state_dict().items():
        whole.update(name.encode())
        whole.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()


def pack(folder: Path, output: Path, *, moments: bool = False, part_bytes: int = _PART_BYTES) -> list[Path]:
    """Write the newest checkpoint of a folder in small files that another machine can go on from; their names.

    Without `moments` the averaged weights alone are kept, in float16 (2 bytes a parameter), and the run goes on from
    them with Adam's moments at zero and its rate rising anew. With them, in 8 bytes a parameter instead of 16, the
    weights' distance from their average and both moments are kept too, in bfloat16: nothing restarts, and all of them
    are rounded to three digits. So neither gives the bits of an uninterrupted run. Files of an earlier call are
    replaced. FieldError where there is no checkpoint.
    """
    saved = read_checkpoint(folder)
    if saved is None or saved["optimiser"] is None:
        raise FieldError("checkpoint", f"{folder} holds no {_NEWEST} to pack", "train first")
    stream = io.BytesIO()
    small: Checkpoint = {**saved, "optimiser": None, "compact": _compact(saved["optimiser"], moments)}
    torch.save(small, stream)
    data = stream.getvalue()
    whole = hashlib.sha256(data).hexdigest()[:16]
    pieces = [data[start : start + part_bytes] for start in range(0, len(data), part_bytes)]
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob(_PARTS):
        old.unlink()
    names = []
    for number, piece in enumerate(pieces, start=1):
        names.append(output / f"state-{whole}-{number:03d}-of-{len(pieces):03d}.part")
        names[-1].write_bytes(piece)
    return names


def _joined(parts: list[Path]) -> bytes:
    """The packed bytes; ValueError for a missing, foreign or damaged part."""
    _, whole, _, _, number = parts[0].stem.split("-")
    if len(parts) != int(number):
        raise ValueError(f"{len(parts)} of its {int(number)} parts are there")
    data = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(data).hexdigest()[:16] != whole:
        raise ValueError("its parts are damaged, or of two different states")
    return data


def _compact(state: OptimiserState, moments: bool) -> Compact:
    average = [value.half() for value in state["average"]]
    found: Compact = {"names": state["names"], "num_updates": state["num_updates"], "average": average}
    if moments:
        found["away"] = [(m - a.float()).bfloat16() for m, a in zip(state["master"], average, strict=True)]
        found["adam"] = {
            number: {key: _short(value) for key, value in values.items()}
            for number, values in state["adam"]["state"].items()
        }
        found["cold_since"] = state.get("cold_since")
    return found


def _short(value: Tensor) -> Tensor:
    """A moment in bfloat16; a count of steps as it is."""
    return value.bfloat16() if value.ndim else value


def _expanded(compact: Compact, optimiser: MasterAdam) -> OptimiserState:
    average = [value.float() for value in compact["average"]]
    adam = optimiser.adam.state_dict()
    cold: int | None = compact["num_updates"]
    if "away" not in compact:
        master = [value.clone() for value in average]
        adam["state"] = {}
    else:
        master = [a + away.float() for a, away in zip(average, compact["away"], strict=True)]
        adam["state"] = {
            number: {key: value.float() for key, value in values.items()} for number, values in compact["adam"].items()
        }
        cold = compact["cold_since"]
    return {
        "names": compact["names"],
        "master": master,
        "average": average,
        "adam": adam,
        "num_updates": compact["num_updates"],
        "cold_since": cold,
    }


def _plain(value: Mapping[str, object]) -> dict[str, object]:
    """The value as JSON would give it back: tuples as lists, paths as text."""
    found: dict[str, object] = json.loads(json.dumps(value, default=str))
    return found
