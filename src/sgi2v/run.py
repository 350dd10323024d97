"""The record of one run: everything needed to make the same video again, as one JSON object (docs/records.md)."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Final

from PIL import Image

from sgi2v.backbones.base import Backbone, Settings
from sgi2v.backbones.registry import is_public
from sgi2v.controllers import Controller, controller_to_dict
from sgi2v.errors import FieldError
from sgi2v.migrations import controller_to_1, newer_fields, without_newer
from sgi2v.records import REQUIRED, Json, RecordReader, version_text
from sgi2v.scene import Scene
from sgi2v.scene_io import scene_to_dict

FORMAT: Final = "sgi2v-run"
VERSION: Final = 2
"""2 knows ranges with a unit, adapters, warnings, and methods that packages bring; without these 1 is written."""
MINOR: Final = 2
"""2.1 knows inputs, a solver, a scene's negative prompt and Time-to-Move's mask rule; without these 2 is written. 2.2
is a light record (:mod:`sgi2v.light`), or one of frames whose padding was cut off."""
_PARTS: Final = ("scene", "backbone", "controller", "sampling", "versions")
_SINCE_2: Final = ("adapters", "warnings")
_SINCE_2_1: Final = "inputs"
_SINCE_2_2: Final = "seen"
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_PACKAGES: Final = ("sgi2v", "torch", "diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, whole: benchmark rows, jobs and a video's metadata all carry this."""

    scene: Json
    """The scene with its image and masks embedded."""
    backbone: Json
    """name, weights_sha256, settings."""
    controller: Json
    """name and every field, as the version says them."""
    sampling: Json
    """num_steps, seed, width, height, num_frames, dtype; solver, where it is another than euler; padding, where it was
    cut off the frames."""
    versions: Mapping[str, str]
    """Package name -> version."""
    adapters: Sequence[Mapping[str, object]] = ()
    """name and sha256 of each trained adapter that took part."""
    warnings: Sequence[str] = ()
    """Remarks to the person before the run, such as what of the scene it left unused."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Latents that were given (noise, reference_latents) -> SHA-256 (:func:`sgi2v.latents.fingerprint`)."""
    seen: Json | None = None
    """Of a light record (:mod:`sgi2v.light`) the key of the full one, and boxes and masks as the model saw them."""
    version: int = VERSION
    """Major version that the full record is written in; in version 1 FreeTraj draws from the noise
    (:mod:`sgi2v.migrations`)."""

    @classmethod
    def of(
        cls,
        scene: Scene,
        backbone: Backbone,
        controller: Controller,
        sampling: Json,
        *,
        adapters: Sequence[Mapping[str, object]] = (),
        warnings: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
        drawn_from_noise: bool = False,
    ) -> Run:
        """The record of a run about to start; ``sampling`` is complete, nothing left to a default.

        Written in the oldest version that can say it. ``drawn_from_noise``: a run of version 1 is repeated.
        """
        # The controller itself stands beside it; the advice it may have come from does not matter.
        settings = {k: v for k, v in asdict(backbone.settings).items() if k not in Settings.ADVICE}
        said = without_newer(controller_to_dict(controller))
        older = controller_to_1(said, drawn_from_noise=drawn_from_noise)
        sampling = {name: value for name, value in sampling.items() if (name, value) != ("solver", "euler")}
        new = inputs or {"solver", "padding"} & set(sampling) or scene.negative_prompt
        old = older is not None and not adapters and not warnings and not new
        return cls(
            scene=embedded(scene),
            backbone={
                "name": public_name(backbone.name),
                "weights_sha256": backbone.weights_sha256,
                "settings": settings,
            },
            controller=older if old and older is not None else said,
            sampling=sampling,
            versions={package: version(package) for package in _PACKAGES},
            adapters=tuple(adapters),
            warnings=tuple(warnings),
            inputs=dict(inputs or {}),
            version=1 if old else VERSION,
        )

    def to_dict(self) -> Json:
        """A JSON object with format and version."""
        parts = {name: getattr(self, name) for name in _PARTS}
        parts |= {name: list(value) for name in _SINCE_2 if (value := getattr(self, name))}
        parts |= {_SINCE_2_1: dict(self.inputs)} if self.inputs else {}
        required = [_SINCE_2_1] * bool(self.inputs)
        required += [f"sampling.{name}" for name in ("solver", "padding") if name in self.sampling]
        required += newer_fields(self.controller) + ["scene.negative_prompt"] * ("negative_prompt" in self.scene)
        written: Json = {"version": self.version}
        if required:
            minor = MINOR if "padding" in self.sampling else 1
            written = {"version": version_text((VERSION, minor)), REQUIRED: required}
        if self.seen is not None:
            written = {"version": version_text((VERSION, MINOR)), REQUIRED: [*required, _SINCE_2_2]}
            parts[_SINCE_2_2] = {**self.seen, "version": self.version}
        # Through JSON, so that tuples and the like are what they will be when read back.
        whole = {"format": FORMAT, **written, **parts}
        loaded = json.loads(json.dumps(whole, allow_nan=False))
        assert isinstance(loaded, dict)
        return loaded

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Run:
        """The run of a JSON object; FieldError for another format, a newer major version, or a part that is missing.

        A newer minor version is read, what is unknown of it with a warning (:mod:`sgi2v.records`).
        """
        if data.get("format") != FORMAT:
            raise FieldError("run", f"not a record of this project (format {data.get('format')!r}, not {FORMAT!r})")
        reader = RecordReader(data, "run", newest=(VERSION, MINOR))
        major, _ = reader.version
        known = {*_PARTS, *(_SINCE_2 if major >= 2 else ()), *([_SINCE_2_1] if reader.version >= (2, 1) else [])}
        known |= {_SINCE_2_2} if reader.version >= (2, 2) else set()
        reader.known(data, {"format", "version", *known})
        reader.warn()
        for name in _PARTS:
            if not isinstance(data.get(name), Mapping):
                raise FieldError(f"run.{name}", "missing or no JSON object; the record is damaged")
        for name in _SINCE_2:
            if not isinstance(data.get(name, []), list):
                raise FieldError(f"run.{name}", "no list; the record is damaged")
        if not isinstance(data.get(_SINCE_2_1, {}), Mapping):
            raise FieldError(f"run.{_SINCE_2_1}", "no JSON object; the record is damaged")
        parts: Json = {name: value for name, value in data.items() if name in known}
        if _SINCE_2_2 in parts:
            seen = parts[_SINCE_2_2]
            if not (
                isinstance(seen, Mapping) and _KEY.fullmatch(str(seen.get("key"))) and seen.get("version") in (1, 2)
            ):
                raise FieldError(f"run.{_SINCE_2_2}", "no key or version of the full record; the record is damaged")
            major = int(seen["version"])
            parts[_SINCE_2_2] = {name: value for name, value in seen.items() if name != "version"}
        return cls(**parts, version=major)

    @property
    def key(self) -> str:
        """SHA-256 of all that decides the video: the record without versions, names and remarks, pictures by pixels.

        Of a light record that of the full one, which it keeps.
        """
        if self.seen is not None:
            return str(self.seen["key"])
        backbone = {name: value for name, value in self.backbone.items() if name != "name"}
        decides = {
            "scene": _by_pixels(self.scene),
            "backbone": backbone,
            "controller": self.controller,
            "sampling": self.sampling,
            "adapters": list(self.adapters),
            "version": self.version,
            **({_SINCE_2_1: dict(self.inputs)} if self.inputs else {}),  # left out, keys of before stay
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _by_pixels(value: object) -> object:
    """The JSON with every embedded picture in place of which stands the hash of its pixels: PNGs of one may differ."""
    if isinstance(value, Mapping):
        return {name: _by_pixels(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_by_pixels(part) for part in value]
    if isinstance(value, str) and value.startswith("data:"):
        with Image.open(io.BytesIO(base64.b64decode(value.partition(",")[2]))) as picture:
            pixels = f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
        return f"sha256:{hashlib.sha256(pixels).hexdigest()}"
    return value


def embedded(scene: Scene) -> Json:
    """A scene as a record holds it, its pictures in it."""
    shown = scene_to_dict(scene, embed=True)
    if scene.negative_prompt:
        # A scene may be read without it, a run may not: the video would be another.
        shown[REQUIRED] = ["negative_prompt"]
    return shown


def public_name(name: str) -> str:
    """A backbone's name without this machine's folders: names and hub ids stay, of a folder the last part."""
    if is_public(name):
        return name
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or name


def trusted_source(run: Run) -> str:
    """The backbone a record may name by itself; FieldError for a folder, which only the user can point at.

    A video comes from anywhere, so a path or an unknown hub id in it is never followed.
    """
    name = run.backbone.get("name")
    if isinstance(name, str) and is_public(name):
        return name
    raise FieldError("backbone", f"the video was made with {name!r}", "give that model's folder with --backbone")
