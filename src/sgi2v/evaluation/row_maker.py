"""One row of a benchmark: what decides it, the clip that is made for it, and what is measured and kept of that."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sgi2v.backbones import Backbone, Settings
from sgi2v.controllers import Controller, controller_to_dict
from sgi2v.device import choose_device, peak_memory, reset_peak_memory
from sgi2v.errors import FieldError
from sgi2v.evaluation.baselines import paste, still
from sgi2v.evaluation.datasets import Case
from sgi2v.evaluation.extractors import Extractor
from sgi2v.evaluation.measuring import MEASURES, measure
from sgi2v.evaluation.origin import origin
from sgi2v.evaluation.rows import row_key
from sgi2v.evaluation.store import Store, StoreFull, content_hash, folder_name
from sgi2v.evaluation.tracker import Tracker
from sgi2v.grid import Grid, Tracks, tracks_of
from sgi2v.migrations import flat
from sgi2v.pipeline import Progress, generate
from sgi2v.planning import Sampling
from sgi2v.records import Json
from sgi2v.run import public_name
from sgi2v.scene import Scene
from sgi2v.scene_io import scene_to_dict
from sgi2v.step import Cancelled
from sgi2v.video import from_uint8, to_uint8

ModelFree = Literal["still", "paste", "true", "reconstructed"]
MODEL_FREE: Final[tuple[ModelFree, ...]] = get_args(ModelFree)
"""Rows without a model: the first frame repeated, the object cut out and dragged, the true clip, and the true clip
through the model's autoencoder (which needs the model, but not its denoiser)."""
Method = Controller | ModelFree
_OFF: Final[Mapping[str, object]] = MappingProxyType(
    {
        "settled": 0.0,
        "reuse_deep": False,
        "shrink": 1,
        "guidance_interval": [0.0, 1.0],
        "solver": "euler",
        "padding": "keep",
    }
)
"""Fields that rows were once without, and what says nothing about a clip: so those rows are still found."""


@dataclass(kw_only=True)
class RowMaker:
    """Makes, measures and describes clips: all of a benchmark but its order."""

    store: Store
    backbone: Backbone | None
    sampling: Sampling
    tracker: Tracker
    extractors: Sequence[Extractor]
    recipe: str | None
    cancelled: Callable[[], bool]

    def __post_init__(self) -> None:
        self.device = choose_device("cpu") if self.backbone is None else self.backbone.device
        self.origin = origin(self.device)
        self.folders = [folder_name(e.name, e.sha256) for e in self.extractors]

    def grid(self) -> Grid:
        """The clip's size."""
        settings = None if self.backbone is None else self.backbone.settings
        width, height, num_frames = (
            getattr(self.sampling, name) or getattr(settings, name) for name in ("width", "height", "num_frames")
        )
        if self.backbone is not None:
            return self.backbone.grid(width, height, num_frames)
        return Grid(width=width, height=height, num_frames=num_frames, stride=1)

    def check(self, case: Case) -> Json:
        """The values that tell the case's scene from others; ValueError where its truth is not of the model's size."""
        grid = self.grid()
        wanted = (grid.num_frames, 3, grid.height, grid.width)
        if case.truth is not None and tuple(case.truth.shape) != wanted:
            raise FieldError(
                case.name,
                f"its true clip is {tuple(case.truth.shape)}",
                f"the model makes {wanted} (frames, channels, height, width)",
            )
        if case.rule:
            return {"rule": case.rule, "case": case.name, "source": dict(case.source)}
        return {"scene_sha256": _scene_hash(case.scene)}

    def identity(
        self, case: Case, scene: Mapping[str, object], label: str, method: Method, seed: int | None
    ) -> tuple[Json, str]:
        """All that decides a row, and the key of its clip, which leaves out how it is measured.

        ``scene`` is what :meth:`check` says of the case.
        """
        grid = self.grid()
        masks = _masks_of(case)
        clip: Json = {**scene, "size": [grid.width, grid.height, grid.num_frames]}
        if isinstance(method, Controller):
            assert self.backbone is not None and seed is not None
            planned = self._sampling(seed)
            record = {**dataclasses.asdict(planned), "dtype": str(self.backbone.dtype).removeprefix("torch.")}
            settings = dataclasses.asdict(self.backbone.settings)
            made = {
                "controller": _drawn(flat(controller_to_dict(method))),
                "sampling": record,
                "backbone": {
                    "weights_sha256": self.backbone.weights_sha256,
                    "settings": {k: v for k, v in settings.items() if k not in Settings.ADVICE},
                },
            }
            # As JSON first: a tuple is no list, and so would not be known as what says nothing.
            clip |= _without_off(json.loads(json.dumps(made, allow_nan=False)))
        else:
            clip["without_model"] = method
            if method != "still" and case.truth is not None and not case.rule:
                clip["truth_sha256"] = content_hash(to_uint8(case.truth).tobytes())
            if method == "paste":
                clip |= masks
                if any(motion.kind == "camera" for motion in case.scene.motions):
                    clip["ground"] = "moves with the camera"  # it did not in earlier rows
            if method == "reconstructed":
                assert self.backbone is not None
                dtype = str(self.backbone.dtype).removeprefix("torch.")
                clip["backbone"] = {"weights_sha256": self.backbone.weights_sha256, "dtype": dtype}
        clip_key = row_key(clip)
        tracked_by: object = self.tracker
        tracker: Json = {"name": type(tracked_by).__name__}
        if dataclasses.is_dataclass(tracked_by):
            values = {f.name: getattr(tracked_by, f.name) for f in dataclasses.fields(tracked_by)}
            # A network is told by its hash, which is a field too.
            tracker |= {k: v for k, v in values.items() if isinstance(v, str | int | float | tuple | None)}
        identity = {
            "case": case.name,
            "source": dict(case.source),
            "method": label,
            "seed": seed,
            **clip,
            "tracker": tracker,
            **masks,
            "measures": MEASURES,
        }
        identity = json.loads(json.dumps(identity, allow_nan=False))
        assert isinstance(identity, dict)
        return identity, clip_key

    def _sampling(self, seed: int) -> Sampling:
        """The settings of sampling with nothing left to a default."""
        assert self.backbone is not None
        grid, settings = self.grid(), self.backbone.settings
        return dataclasses.replace(
            self.sampling,
            seed=seed,
            padding="keep",  # things are followed in the model's own picture
            num_steps=self.sampling.num_steps or settings.num_steps,
            width=grid.width,
            height=grid.height,
            num_frames=grid.num_frames,
        )

    def run(
        self,
        case: Case,
        method: Method,
        seed: int | None,
        clip_key: str,
        tell: Callable[[Progress | None], None],
    ) -> Json:
        """The figures of a row, or its error; StoreFull where they cannot be kept."""
        try:
            tracks = tracks_of(case.scene, self.grid())
            found = self.store.load_clip(clip_key)
            if found is None:
                reset_peak_memory(self.device)
                begun = time.perf_counter()
                frames = self._make(case, tracks, method, seed, tell)
                networks = isinstance(method, Controller) or method == "reconstructed"
                made = {
                    **self.origin,
                    "seconds": round(time.perf_counter() - begun, 3),
                    "peak_memory": peak_memory(self.device),
                    "recipe": self.recipe if isinstance(method, Controller) else None,
                    "model": public_name(self.backbone.name) if networks and self.backbone is not None else None,
                }
                self.store.save_clip(clip_key, frames, made)
            else:
                frames, made = found
            figures = measure(
                from_uint8(frames),
                tracks,
                self.tracker,
                truth=case.truth,
                masks=_pixels(case, tracks),
                still_camera="camera" not in case.kinds if case.still_camera is None else case.still_camera,
            )
            self.describe(clip_key, frames)
            boxes = [[[round(float(v), 2) for v in box] for box in track.boxes] for track in tracks.tracks]
            return {**made, "metrics": _rounded(figures), "boxes": boxes}
        except (Cancelled, StoreFull):
            raise
        except Exception as error:  # whatever is wrong with one scene, the others go on
            message = " ".join(str(error).split())
            return {**self.origin, "recipe": self.recipe, "error": f"{type(error).__name__}: {message}"}

    def _make(
        self,
        case: Case,
        tracks: Tracks,
        method: Method,
        seed: int | None,
        tell: Callable[[Progress | None], None],
    ) -> UInt8[np.ndarray, "f h w 3"]:
        """The clip, in 8 bits."""
        grid = self.grid()
        first = from_uint8(np.asarray(tracks.image)[None])[0]
        if isinstance(method, Controller):
            assert seed is not None
            video = generate(
                case.scene,
                backbone=self.backbone,
                controller=method,
                sampling=self._sampling(seed),
                progress=tell,
                cancelled=self.cancelled,
            )
            return to_uint8(video.frames)
        if method == "still":
            return to_uint8(still(first, grid.num_frames))
        if method == "paste":
            boxes = torch.from_numpy(tracks.boxes(range(grid.num_frames)))
            camera = [track.kind == "camera" for track in tracks.tracks]
            return to_uint8(paste(first, boxes, _pixels(case, tracks), camera))
        assert case.truth is not None
        if method == "true":
            return to_uint8(case.truth)
        assert self.backbone is not None
        with torch.no_grad():
            latents = self.backbone.encode_frames(case.truth.to(self.backbone.device), grid)
            return to_uint8(self.backbone.decode(latents).cpu())

    def describe(self, clip_key: str, frames: UInt8[np.ndarray, "f h w 3"] | None = None) -> None:
        """Features of a clip by every extractor, unless they are kept already."""
        for extractor, folder in zip(self.extractors, self.folders, strict=True):
            about = {name: getattr(extractor, name, None) for name in ("name", "sha256", "unit", "resize")}
            self.store.save_extractor(folder, about)
            if self.store.load_features(clip_key, folder) is not None:
                continue
            if frames is None:
                found = self.store.load_clip(clip_key)
                if found is None:
                    return  # the rows were copied without their clips
                frames = found[0]
            with torch.no_grad():
                features = extractor.features(from_uint8(frames))
            self.store.save_features(clip_key, folder, features.float().cpu().numpy())


def _scene_hash(scene: Scene) -> str:
    """Hash of a scene's fields and its pictures' pixels: how a PNG is compressed differs between machines."""
    pictures = [scene.image, *(motion.mask for motion in scene.motions)]
    if scene.reference is not None:
        pictures += [*scene.reference.frames, *(scene.reference.masks or ())]
    pixels = [
        b"" if picture is None else f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
        for picture in pictures
    ]
    fields = scene_to_dict(scene, embed=False)
    return content_hash(json.dumps(fields, sort_keys=True).encode(), *pixels)


def _masks_of(case: Case) -> dict[str, str | None]:
    """The values that tell the masks of a case's first frame from any others; none where its rule does."""
    if case.rule:
        return {}
    return {"masks_sha256": None if case.masks is None else content_hash(case.masks[:, 0].numpy().tobytes())}


def _rounded(value: object) -> object:
    """Every number to six significant digits, which is more than any measurement here is good for."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _drawn(controller: Json) -> Json:
    """The fields with a word on FreeTraj's extra draws: once from the noise, now from the run's own generator."""
    if "+" in controller["name"]:
        return {k: _drawn(v) if isinstance(v, dict) else v for k, v in controller.items()}
    draws = controller["name"] == "freetraj" and controller["inject_noise"]
    return {**controller, "draws": "generator"} if draws else controller


def older_identity(identity: Mapping[str, object]) -> Json:
    """The identity of a row from before FreeTraj drew from the run's generator: as good a sample, another draw."""
    return {
        name: older_identity(value) if isinstance(value, Mapping) else value
        for name, value in identity.items()
        if (name, value) != ("draws", "generator")
    }


def _without_off(values: Mapping[str, object]) -> Json:
    """The values without those of :data:`_OFF`, at every depth."""
    return {
        name: _without_off(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if name not in _OFF or value != _OFF[name]
    }


def _pixels(case: Case, tracks: Tracks) -> list[Float[Tensor, "h w"] | None]:
    """Each thing's pixels on the first frame, 0..1, as the person or else the data set says; None for a whole box."""
    found: list[Tensor | None] = []
    for index, track in enumerate(tracks.tracks):
        if track.mask is not None:
            found.append(torch.from_numpy(np.asarray(track.mask, dtype=np.float32) / 255))
        else:
            found.append(None if case.masks is None else case.masks[index, 0])
    return found
