"""Knowledge of models and methods: the one part of the server that needs torch, loaded when first asked."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from sgi2v.backbones import Outline, outline_of
from sgi2v.backbones.base import Settings, settings_with, settings_with_recipe
from sgi2v.checks import check_bounds
from sgi2v.controllers import (
    COMBINATIONS,
    Controller,
    InTurn,
    controller_class,
    controller_from_dict,
    controller_to_dict,
    controllers,
    recommended,
)
from sgi2v.errors import FieldError, within
from sgi2v.fitting import fitted
from sgi2v.grid import Grid
from sgi2v.pipeline import plan
from sgi2v.planning import Sampling
from sgi2v.remarks import MAX_SPEED, max_speed, speeds
from sgi2v.run import Run, public_name
from sgi2v.scene import Scene, frame_times
from sgi2v.shape import Shapely, shaped
from sgi2v.studio.fields import describe
from sgi2v.studio.settings import StudioSettings

_ELSEWHERE: Final = frozenset({*Settings.SIZE, *Settings.ADVICE, "bfloat16_on_cpu"})
"""Settings that are no part of a job's own: sizes are its sampling's, advice changes no video."""


class LibraryEngine:
    """The engine of the models that the studio was started with."""

    def __init__(self, settings: StudioSettings) -> None:
        """Reads the models' folders, not their weights; ValueError for one that is none."""
        self._names = {public_name(name): name for name in settings.backbones}
        self._outlines = {shown: outline_of(name) for shown, name in self._names.items()}
        for shown, outline in self._outlines.items():  # a kind of somebody else's may not look at its own numbers
            check_bounds(f"{shown}.settings", outline.settings)
        self._limits = settings.limits

    def info(self, recipe: str | None = None) -> dict[str, Any]:
        """Models with their methods and all fields, as the API's page says."""
        if recipe is not None and not any(recipe in outline.settings.recipes for outline in self._outlines.values()):
            known = sorted({name for outline in self._outlines.values() for name in outline.settings.recipes})
            raise FieldError("recipe", f"unknown {recipe!r}", f"known are {', '.join(known) or 'none'}")
        return {
            "version": version("sgi2v"),
            "backbones": [_backbone_info(name, outline, recipe) for name, outline in self._outlines.items()],
            "default_backbone": next(iter(self._names)),
            "default_controller": next(iter(self._outlines.values())).settings.default,
        }

    def plan(self, request: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
        """Plan of a job with this request, nothing left to a default."""
        name = request.get("backbone") or next(iter(self._names))
        if name not in self._outlines:
            raise FieldError("backbone", f"{name!r} is not on offer here", f"there are {', '.join(self._names)}")
        outline = self._outlines[name]
        settings = settings_with_recipe(outline.settings, request.get("recipe"))
        changed = fitted(type(settings), request.get("settings") or {}, "settings")
        if refused := sorted(set(changed) & _ELSEWHERE):
            raise FieldError(f"settings.{refused[0]}", "is no setting of a job", "say it under sampling or controller")
        settings = settings_with(settings, changed, "settings")
        sampling = Sampling(**_sampling(request.get("sampling") or {}))
        controller = _controller(request.get("controller") or {}, settings)
        check_bounds("settings", settings)
        check_bounds("controller", controller)
        outline = outline.with_settings(settings)
        self._check_size(shaped(scene, outline, sampling)[1], settings)
        planned = plan(scene, outline, controller=controller, sampling=sampling)
        limit = max_speed(planned.grid)
        motions = _motions(planned.scene, planned.tracks.tracks, planned.grid, limit)
        out = sum(motion["leaves_frame"] for motion in motions if motion["kind"] == "camera")
        outside = [f"{out} camera boxes leave the frame on their way; make the camera's move smaller"] if out else []
        return {
            "backbone": name,
            "controller": controller_to_dict(planned.controller),
            "sampling": dataclasses.asdict(planned.sampling),
            "fit": planned.scene.fit,
            "settings": changed,
            "recipe": request.get("recipe"),
            "guided_iterations": sum(planned.schedule.iterations),
            "max_speed": limit,
            # The page shows speeds where they are.
            "warnings": [*(one for one in planned.warnings if one not in planned.too_fast), *outside],
            "motions": motions,
        }

    def read_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Scene JSON (pictures embedded) and settings of a run's record."""
        run = Run.from_dict(record)
        values = {name: value for name, value in run.sampling.items() if name != "dtype"}
        known = _sampling(values, "run.sampling")
        with within("run.sampling"):
            sampling = Sampling(**known)
        name = str(run.backbone.get("name"))
        here = name in self._outlines and self._hashes[name] == run.backbone.get("weights_sha256")
        with within("run"):
            controller = controller_from_dict(run.controller)
            check_bounds("controller", controller)
        return {
            "scene": dict(run.scene),
            "controller": controller_to_dict(controller),
            "sampling": dataclasses.asdict(sampling),
            "settings": self._settings_of(run.backbone.get("settings"), name),
            "backbone": {
                "name": name,
                "weights_sha256": str(run.backbone.get("weights_sha256")),
                "here": here,
            },
        }

    def _settings_of(self, given: Any, name: str) -> dict[str, Any]:
        """A record's settings; those of a model that is not here only where the default model would take them."""
        own = self._outlines.get(name) or next(iter(self._outlines.values()))
        known = {f.name for f in dataclasses.fields(own.settings)} - _ELSEWHERE
        values = {k: v for k, v in given.items() if k in known} if isinstance(given, Mapping) else {}
        where = "run.backbone.settings"
        try:
            fitting = fitted(type(own.settings), values, where)
            with within("run.backbone"):
                check_bounds("settings", dataclasses.replace(own.settings, **fitting))
        except FieldError:
            if name in self._outlines:
                raise
            return {}
        return values

    @cached_property
    def _hashes(self) -> Mapping[str, str]:
        return {name: outline.hash_weights() for name, outline in self._outlines.items()}

    def _check_size(self, sampling: Sampling, settings: Settings) -> None:
        size = [getattr(sampling, name) or getattr(settings, name) for name in ("width", "height", "num_frames")]
        if size[0] * size[1] * size[2] > self._limits.video_pixels:
            raise FieldError(
                "sampling.num_frames",
                f"{size[2]} frames of {size[0]}x{size[1]} are more than the "
                f"{self._limits.video_pixels // 1000000} megapixels that this studio makes",
                "lower width, height or num_frames",
            )


def _sampling(values: Mapping[str, Any], where: str = "sampling") -> dict[str, Any]:
    known = {f.name for f in dataclasses.fields(Sampling)}
    if unknown := sorted(set(values) - known):
        raise FieldError(f"{where}.{unknown[0]}", "no such field", f"known are {', '.join(sorted(known))}")
    return fitted(Sampling, {name: value for name, value in values.items() if value is not None}, where)


def _controller(given: Mapping[str, Any], settings: Settings) -> Controller:
    """The controller asked for, with the model's recommendation wherever nothing is said."""
    name = given.get("name") or settings.default
    if not isinstance(name, str):
        raise FieldError("controller.name", "is not a text", "give the name of a method")
    base = recommended(name, settings.recommended)
    return controller_from_dict({**given, "name": name}, over=base)


def _motions(scene: Scene, tracks: Any, grid: Grid, limit: float) -> list[dict[str, Any]]:
    """Every motion's boxes in pixels of the picture, and how far it goes from frame to frame in those of the video."""
    shown = []
    times = [float(time) for time in frame_times(grid.num_frames)]
    size = np.array([grid.width, grid.height])
    for motion, track in zip(scene.motions, tracks, strict=True):
        way, centers = speeds(track), np.asarray(track.centers, dtype=np.float64)
        fastest = float(way.max(initial=0.0))
        shown.append(
            {
                "name": motion.name,
                "kind": motion.kind,
                "boxes": [[box.left, box.top, box.right, box.bottom] for box in motion.boxes_at(times)],
                "speeds": [round(float(speed), 4) for speed in way],
                "max_speed": fastest,
                "too_fast": fastest > limit,
                "leaves_frame": bool(((centers < 0) | (centers > size)).any()),
            }
        )
    return shown


def _backbone_info(name: str, outline: Outline, recipe: str | None) -> dict[str, Any]:
    settings = settings_with_recipe(outline.settings, recipe if recipe in outline.settings.recipes else None)
    own = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    size = {key: own[key] for key in ("width", "height", "num_frames", "num_steps")}
    return {
        "name": name,
        **size,
        "fps": settings.fps,
        "takes_text": outline.takes_text,
        "stride": outline.grid(settings.width, settings.height, settings.num_frames).stride,
        "multiple": outline.multiple if isinstance(outline, Shapely) else None,
        "aspects": outline.aspects if isinstance(outline, Shapely) else None,
        "max_speed": MAX_SPEED * min(settings.width, settings.height),
        "recipes": list(settings.recipes),
        "default_controller": settings.default,
        "controllers": [
            _controller_info(kind, settings) for kind in (*controllers(), *COMBINATIONS) if _has_weights(kind, outline)
        ],
        "sampling": describe(Sampling, size),
        "settings": describe(type(settings), own, _ELSEWHERE),
    }


def _has_weights(name: str, outline: Outline) -> bool:
    """False for a trained system whose weights are not loaded with the model."""
    wanted = {kind for part in name.split("+") for kind in controllers()[part]().uses().adapters}
    return wanted <= {one.kind for one in getattr(outline, "adapters", ())}


def _controller_info(name: str, settings: Settings) -> dict[str, Any]:
    kind = controller_class(name)
    controller = recommended(name, settings.recommended)
    text = " ".join((kind.__doc__ or "").split())
    return {
        "name": name,
        "title": (kind.__doc__ or name).splitlines()[0],
        "note": settings.notes.get(name, ""),
        "description": text,
        "combination": kind is InTurn,
        "needs_motions": controller.uses().motions,
        "takes_reference": controller.uses().reference,
        "fields": [] if isinstance(controller, InTurn) else _own_fields(controller),
        "parts": [
            {"key": key, "name": part["name"], "fields": _own_fields(getattr(controller, key))}
            for key in ("first", "second")
            if isinstance(part := controller_to_dict(controller).get(key), Mapping) and isinstance(controller, InTurn)
        ],
    }


def _own_fields(controller: Controller) -> list[dict[str, Any]]:
    values = {f.name: getattr(controller, f.name) for f in dataclasses.fields(controller)}
    return describe(type(controller), values)
