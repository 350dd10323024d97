"""A model's folder in diffusers' layout: found by name, folder or hub id, and checked before anything is loaded."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors

BUNDLED = "bundled"
HUB_IDS: Mapping[str, str] = MappingProxyType(
    {
        "svd": "stabilityai/stable-video-diffusion-img2vid",
        "svd-xt": "stabilityai/stable-video-diffusion-img2vid-xt",
    }
)
SETTINGS_FILE = "sgi2v.json"
_WEIGHED = ("unet", "vae", "image_encoder")
_CONFIGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "image_encoder/config.json",
    "scheduler/scheduler_config.json",
    "feature_extractor/preprocessor_config.json",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_LIBRARIES = ("diffusers", "transformers")
_MAX_CONFIG_BYTES = 2**20


def bundled_folder() -> Path:
    """The folder of the model that ships in the package."""
    return Path(__file__).parents[1] / "assets"


def find_folder(source: str, *, half: bool) -> Path:
    """The local folder of a backbone: ``bundled``, a name in HUB_IDS, a folder, or a hub id (fetched if need be).

    ``half`` asks a hub for the fp16 files. Raises ValueError when there is none, or when a hub cannot be reached.
    """
    if source == BUNDLED:
        return bundled_folder()
    if Path(source).is_dir():
        return Path(source)
    hub_id = HUB_IDS.get(source, source)
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise ValueError(
            f"backbone: {source!r} is no folder and no name; use {BUNDLED}, {', '.join(HUB_IDS)}, a folder or a hub id"
        )
    return _fetch(hub_id, half=half)


def _fetch(hub_id: str, *, half: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    weights = [f"{part}/*.{'fp16.' if half else ''}safetensors*" for part in _WEIGHED]
    wanted = ["model_index.json", SETTINGS_FILE, "*/config.json", "*/*_config.json", *weights]
    unwanted = None if half else ["*.fp16.safetensors*"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=unwanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"backbone: {hub_id!r} could not be fetched ({reason}); download it elsewhere and give its folder instead"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the three networks, in a fixed order."""
    return sorted(file for part in _WEIGHED for file in (folder / part).glob("*.safetensors"))


def check_folder(folder: Path) -> None:
    """ValueError naming the file when a model folder is incomplete, corrupt, or holds pickle weights only or programs.

    Reads headers only, so it costs nothing and comes before any loading.
    """
    # Some versions of diffusers run a file of a model's own instead of the library's class.
    programs = sorted((*folder.glob("*.py"), *folder.glob("*/*.py")))
    if programs:
        raise ValueError(f"backbone: {programs[0]} is a program, which a model needs none of; delete it")
    for name in _CONFIGS:
        file = folder / name
        if not file.is_file():
            raise ValueError(
                f"backbone: {folder} is incomplete: {name} is missing; fetch or export the model again"
            )
        read_json(file)
    for part, value in read_json(folder / "model_index.json").items():
        if not isinstance(value, list):
            continue
        library = value[0] if value else "nowhere"
        # A list for what is no part names a class of the folder's own.
        if part.startswith("_") or library not in _LIBRARIES:
            raise ValueError(
                f"backbone: {folder / 'model_index.json'} takes {part} from {library}; "
                f"a Stable Video Diffusion model takes its parts from {' and '.join(_LIBRARIES)} alone"
            )
    for part in _WEIGHED:
        files = list((folder / part).glob("*.safetensors"))
        if not files:
            pickles = [f.name for f in (folder / part).iterdir() if f.suffix in _PICKLES]
            if pickles:
                raise ValueError(
                    f"backbone: {folder / part} holds pickle weights only ({pickles[0]}), which can run code; "
                    "convert them with diffusers' save_pretrained(..., safe_serialization=True)"
                )
            raise ValueError(
                f"backbone: {folder / part} holds no *.safetensors file; fetch or export the model again"
            )
        for file in files:
            try:
                with safetensors.safe_open(file, framework="pt"):
                    pass
            except (OSError, safetensors.SafetensorError) as error:
                raise ValueError(f"backbone: {file} is corrupt ({error}); fetch or export it again") from None


def read_json(file: Path) -> dict[str, Any]:
    """A small JSON object from a model folder; ValueError naming the file when it is none."""
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("larger than 1 MiB")
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"backbone: {file} cannot be read ({error}); fetch or export the model again"
        ) from None
    return data


def variant_of(folder: Path, *, half: bool) -> str | None:
    """``fp16`` when those files are wanted, or the only ones there; None for the plain files."""
    stems = [file.name for file in (folder / "unet").glob("*.safetensors")]
    fp16 = [name for name in stems if ".fp16" in name]
    return "fp16" if fp16 and (half or len(fp16) == len(stems)) else None


def weights_sha256(folder: Path) -> str:
    """SHA-256 over names and contents of all weight files: says exactly which model made a video."""
    whole = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()
