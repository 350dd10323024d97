"""Data sets of a benchmark: cases, each a scene with what is known about it, from a folder or a rendered world."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.grid import Grid, Track, tracks_of
from sgi2v.listing import listed
from sgi2v.records import Json
from sgi2v.scene import Scene
from sgi2v.scene_io import load_scene

CURVED: Final = 0.1
"""A path that leaves the straight line between its ends by this share of that line's length is a curved one."""
HIDDEN: Final = 0.2
"""Something of which this share is hidden in some frame is occluded."""
_STILL: Final = 1.0
"""Pixels; a box that stays this close to where it began does not move."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scene of a benchmark and what is known about it."""

    name: str
    """Unique within the data set."""
    scene: Scene
    """The scene that the controllers are asked for."""
    truth: Float32[Tensor, "f 3 h w"] | None = None
    """The true clip: RGB in 0..1, exactly as large and as long as the model's clip."""
    masks: Float[Tensor, "n f h w"] | None = None
    """Of each motion, in order, its thing's visible pixels in every frame, 0..1; as large as the truth."""
    kinds: tuple[str, ...] = ()
    """Its kinds, by which the report is split: several objects, a part, camera, curved path, occlusion."""
    source: Json = field(default_factory=dict)
    """Its source: JSON values without paths of this machine."""
    still_camera: bool | None = None
    """True if what is outside the boxes stays where it is; None: unless one of them is the camera's."""
    rule: str = ""
    """The program that drew its pictures, and its version, where that, name and source decide them but for rounding,
    which is not the same on every processor. Then rows know the case by these, else by its pictures' pixels. Empty it
    in a case that you change."""


@runtime_checkable
class Cases(Protocol):
    """A data set: its cases by number, each made when it is asked for, so that thousands cost nothing."""

    def __len__(self) -> int:
        """Number of cases, those that turn out unusable included."""

    def __getitem__(self, index: int, /) -> Case:
        """A case; ValueError, naming the file and what is wrong with it, where it cannot be used."""


def path_kinds(tracks: Sequence[Track]) -> tuple[str, ...]:
    """Kinds of a scene that its boxes alone tell: several objects, camera, curved path."""
    moving = [track for track in tracks if _moves(track)]
    found = []
    if sum(track.kind == "object" for track in tracks) > 1:
        found.append("several objects")
    if any(track.kind == "camera" for track in moving):
        found.append("camera")
    if any(track.kind == "object" and bend(track.centers) > CURVED for track in moving):
        found.append("curved path")
    return tuple(found)


def bend(centers: Float32[np.ndarray, "f 2"]) -> float:
    """Largest distance of a path (x, y) from the line between its ends, over that line's length.

    A path that comes back to where it began has no such line: its farthest point decides then, and is a full bend.
    """
    way = (centers - centers[0]).astype(np.float64)
    length = float(np.hypot(*way[-1]))
    reach = float(np.hypot(way[:, 0], way[:, 1]).max())
    if length < 0.1 * reach or length == 0:
        return float(reach > 0)
    across = np.abs(way[:, 0] * way[-1, 1] - way[:, 1] * way[-1, 0]) / length
    return float(across.max() / length)


def hidden_share(masks: Float[Tensor, "f h w"], boxes: Float[Tensor, "f 4"]) -> float:
    """Largest share, 0..1, of a thing's area that is hidden in any frame, its growth (boxes, pixels) allowed for."""
    area = masks.double().sum((1, 2))
    size = (boxes[:, 2:] - boxes[:, :2]).double().clamp(min=1e-6).prod(-1)
    filled = area / size
    most = float(filled.max())
    return 0.0 if most <= 0 else 1 - float(filled.min()) / most


def _moves(track: Track) -> bool:
    return bool(np.abs(track.centers - track.centers[:1]).max() > _STILL)


@dataclass(frozen=True, kw_only=True)
class SceneFolder:
    """Scenes in a folder: scene.json files, and folders that hold one or img.png and traj.npy.

    Nothing is known about what really happens in them, so they have no true clip. ValueError for a folder without any.
    """

    folder: Path
    """A scene's own folder, or one that holds scenes."""
    num_frames: int = 14
    """Frames of the clip, at which the kinds of its paths are judged."""
    limit: int | None = None
    """At most so many scenes, in the order of their names."""
    files: tuple[Path, ...] = field(init=False, repr=False)
    """The scenes that were found."""

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FieldError(
                "scenes", f"{self.folder} is no folder", "give one that holds scenes (scene.json or traj.npy)"
            )
        if self.limit is not None and self.limit < 1:
            raise FieldError("limit", f"must be at least 1, got {self.limit}")
        found = [self.folder] if _holds_scene(self.folder) else []
        if not found:
            places = sorted(listed(self.folder), key=lambda place: (len(place.name), place.name))
            found = [p for p in places if (p.suffix == ".json" and p.is_file()) or _holds_scene(p)]
        if not found:
            raise FieldError(
                "scenes",
                f"{self.folder} holds no scene",
                "put scene.json files into it, or folders with traj.npy",
            )
        names = [_name(place) for place in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise FieldError(
                "scenes",
                f"{self.folder} holds two scenes called {twice!r}, a file and a folder",
                "rename one",
            )
        object.__setattr__(self, "files", tuple(found[: self.limit]))

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.files)

    def __getitem__(self, index: int) -> Case:
        """A scene; ValueError naming its file where it cannot be read."""
        file = self.files[index]
        try:
            scene = load_scene(file)
        except ValueError as error:
            raise FieldError(str(file), str(error)) from error
        grid = Grid(width=scene.image.width, height=scene.image.height, num_frames=self.num_frames, stride=1)
        name = _name(file)
        return Case(
            name=name or file.resolve().name,
            scene=scene,
            kinds=path_kinds(tracks_of(scene, grid).tracks),
            source={"dataset": "scenes", "folder": self.folder.resolve().name},
        )


def _name(place: Path) -> str:
    return place.stem if place.suffix == ".json" else place.name


def _holds_scene(folder: Path) -> bool:
    return (folder / "scene.json").is_file() or (folder / "traj.npy").is_file()


def with_kinds(case: Case, *kinds: str) -> Case:
    """The case with more kinds, each once, in the order of the report."""
    order = ("several objects", "part", "camera", "curved path", "occlusion")
    found = {*case.kinds, *kinds}
    known = [kind for kind in order if kind in found]
    return replace(case, kinds=(*known, *sorted(found - set(order))))
