"""The record of one run: everything needed to make the same video again, as one JSON object."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from sgi2v.backbones import Backbone
from sgi2v.backbones.folder import BUNDLED, HUB_IDS
from sgi2v.controllers import Controller, controller_to_dict
from sgi2v.scene import Scene
from sgi2v.scene_io import scene_to_dict

FORMAT: Final = "sgi2v-run"
VERSION: Final = 1
_PARTS: Final = ("scene", "backbone", "controller", "sampling", "versions")
_PACKAGES: Final = ("sgi2v", "torch", "diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, whole: benchmark rows, jobs and a video's metadata all carry this."""

    scene: Mapping[str, Any]
    """The scene with its image and masks embedded."""
    backbone: Mapping[str, Any]
    """name, weights_sha256, settings."""
    controller: Mapping[str, Any]
    """name and every field."""
    sampling: Mapping[str, Any]
    """num_steps, seed, width, height, num_frames, dtype."""
    versions: Mapping[str, str]
    """Package name -> version."""

    @classmethod
    def of(
        cls, scene: Scene, backbone: Backbone, controller: Controller, sampling: Mapping[str, Any]
    ) -> "Run":
        """The record of a run about to start; ``sampling`` is complete, nothing left to a default."""
        # What the controller really was stands beside it; the advice it may have come from does not matter.
        advice = ("recommended", "recipes", "notes")
        settings = {name: v for name, v in asdict(backbone.settings).items() if name not in advice}
        return cls(
            scene=scene_to_dict(scene, embed=True),
            backbone={
                "name": public_name(backbone.name),
                "weights_sha256": backbone.weights_sha256,
                "settings": settings,
            },
            controller=controller_to_dict(controller),
            sampling=dict(sampling),
            versions={package: version(package) for package in _PACKAGES},
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object with format and version."""
        parts = {name: getattr(self, name) for name in _PARTS}
        # Through JSON, so that tuples and the like are what they will be when read back.
        loaded = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **parts}, allow_nan=False))
        assert isinstance(loaded, dict)
        return loaded

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Run":
        """The run of a JSON object; ValueError for another format, a newer version, or a part that is missing."""
        if data.get("format") != FORMAT:
            raise ValueError(
                f"run: not a record of this project (format {data.get('format')!r}, not {FORMAT!r})"
            )
        if data.get("version") != VERSION:
            raise ValueError(
                f"run.version: {data.get('version')!r} is not {VERSION}; a newer sgi2v wrote it: update"
            )
        unknown = sorted(set(data) - {"format", "version", *_PARTS})
        if unknown:
            raise ValueError(f"run: unknown field {unknown[0]!r}")
        for name in _PARTS:
            if not isinstance(data.get(name), Mapping):
                raise ValueError(f"run.{name}: missing or no JSON object; the record is damaged")
        return cls(**{name: data[name] for name in _PARTS})

    @property
    def key(self) -> str:
        """SHA-256 of the record's canonical JSON: the name of a row or a job."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def public_name(name: str) -> str:
    """A backbone's name without this machine's folders: names and hub ids stay, of a folder the last part."""
    if name in (BUNDLED, *HUB_IDS, *HUB_IDS.values()):
        return name
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or name


def trusted_source(run: Run) -> str:
    """The backbone a record may name by itself; ValueError for a folder, which only the user can point at.

    A video comes from anywhere, so a path or an unknown hub id in it is never followed.
    """
    name = run.backbone.get("name")
    if name in (BUNDLED, *HUB_IDS, *HUB_IDS.values()):
        return str(name)
    raise ValueError(f"backbone: the video was made with {name!r}; give that model's folder with --backbone")
