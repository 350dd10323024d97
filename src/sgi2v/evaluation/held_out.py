"""Cases of the rendered world that training never saw: true clips, boxes, paths and masks known exactly."""

from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.evaluation.datasets import HIDDEN, Case, hidden_share, path_kinds, with_kinds
from sgi2v.grid import Grid, tracks_of
from sgi2v.scene import Box, Key, Motion, Scene, frame_times
from sgi2v.video import from_uint8, to_uint8
from sgi2v.world import Clip, Kind, LifelikeWorld, World

Variety = Literal["one", "mixed"]
WANTED: Final = ("", "several objects", "part", "curved path", "occlusion", "camera")
"""Kinds of the scenes of a mixed set, in turn."""
RULE: Final = "world 1"
"""Raise the number when scenes of the same fields and number come to look otherwise: then old rows are of others."""
_ATTEMPTS: Final = 40
_STRIDE: Final = 1_000_003  # between the seeds of two sets, as in the world
_PART: Final = 0.6  # side of the box on a part, over the thing's


@dataclass(frozen=True, kw_only=True)
class HeldOutWorld:
    """Rendered scenes of shapes, textures and seeds that training never sees; thousands of them on demand.

    Set 0 is the test split, touched once settings are chosen; sets 1 and up are for choosing them. The same fields
    and number give the same case.
    """

    scene_set: int = 0
    """0: the test split. 1 and up: for choosing settings."""
    limit: int = 16
    """Number of scenes; more of them change none of the first."""
    variety: Variety = "one"
    """'one': every scene of the kind and number of things below, thing 0 asked to move. 'mixed': in turn one thing,
    several, a part of one, a curved path, a thing that goes behind another, and a moving camera."""
    kind: Kind = "simple"
    """Kind of rendered world; with variety 'mixed' lifelike, or else simple and, where the camera moves, rich."""
    num_things: int = 1
    """Things in a scene, with variety 'one'; the one that is asked to move lies on top."""
    width: int = 64
    """Pixels."""
    height: int = 64
    """Pixels."""
    num_frames: int = 8
    """Frames of a clip."""

    def __post_init__(self) -> None:
        if self.scene_set < 0 or self.limit < 1:
            raise FieldError("scene_set, limit", f"must be at least 0 and 1, got {self.scene_set}, {self.limit}")
        if self.limit > _STRIDE // 2 // _ATTEMPTS:
            raise FieldError("limit", f"at most {_STRIDE // 2 // _ATTEMPTS} scenes a set, got {self.limit}")
        self.world()

    def __len__(self) -> int:
        """Number of scenes."""
        return self.limit

    def __getitem__(self, index: int) -> Case:
        """The case of a number; IndexError beyond the last."""
        if not 0 <= index < self.limit:
            raise IndexError(index)
        if self.variety == "mixed":
            return self._mixed(index)
        world = self.world()
        # Only the one asked for is drawn.
        clip = world.render(1, _STRIDE * (self.scene_set + 1) + index)[0]
        plain = self.kind == "simple" and self.num_things == 1
        suffix = "" if plain else f"-{self.kind}-{self.num_things}"
        return self._case(f"world-{self.scene_set}-{index:02d}{suffix}", world, clip, (thing_motion(clip, 0),), (0,))

    def world(self, **changes: object) -> World | LifelikeWorld:
        """The world that is rendered, some of its fields changed."""
        side = min(self.width, self.height)
        most, (low, high) = side / 2.2, World.radius
        world: World | LifelikeWorld
        if self.kind == "lifelike":
            # The thing that is asked to move stays in view, and a camera that nobody asks to move stays.
            world, low, high = LifelikeWorld(camera=0.0, passing=0.0, occluder=0.0), 0.23 * most, 0.73 * most
        else:
            world = World(kind=self.kind)
            if high > most:
                low, high = 0.6 * most, most
            elif 8 * low < side:  # an eighth to a fifth of the shorter side, and no less
                larger = side / (8 * low)
                low, high = larger * low, larger * high
        fields = {name: getattr(self, name) for name in ("width", "height", "num_frames", "num_things")}
        fields |= {"radius": (low, high), "held_out": True, "still": 0.0}
        return replace(world, **{**fields, **changes})

    def _mixed(self, index: int) -> Case:
        """The scene of a number in a mixed set: the first drawn one that has what is wanted, or else the last."""
        wanted = WANTED[index % len(WANTED)]
        several = wanted in ("several objects", "occlusion")
        changes: dict[str, object] = {"num_things": 2 if several else 1, "moving_others": 1.0 if several else 0.5}
        if self.kind == "lifelike":
            changes |= {"camera": float(wanted == "camera"), "occluder": float(wanted == "occlusion")}
        else:
            changes["kind"] = "rich" if wanted == "camera" else "simple"
        world = self.world(**changes)
        suffix = "-lifelike" if self.kind == "lifelike" else ""
        name = f"world-{self.scene_set}-mixed-{index:02d}{suffix}"
        case: Case | None = None
        for attempt in range(_ATTEMPTS):
            seed = _STRIDE * (self.scene_set + 1) + _STRIDE // 2 + _ATTEMPTS * index + attempt
            clip = world.render(1, seed)[0]
            motions, things = self._asked(clip, wanted)
            case = self._case(name, world, clip, motions, things)
            if wanted == "part":
                case = with_kinds(case, "part")
            alone = wanted in ("several objects", "") and "occlusion" in case.kinds
            if (wanted in case.kinds or not wanted) and not alone:
                return case
        assert case is not None
        return case

    def _asked(self, clip: Clip, wanted: str) -> tuple[tuple[Motion, ...], tuple[int | None, ...]]:
        """The motions of a mixed scene, and the thing each sits on (None: the background)."""
        if wanted == "part":
            return (thing_motion(clip, 0, part=True),), (0,)
        if wanted == "camera":
            return (thing_motion(clip, 0), camera_motion(clip)), (0, None)
        things = tuple(range(clip.boxes.shape[0]))
        return tuple(thing_motion(clip, thing) for thing in things), things

    def _case(
        self,
        name: str,
        world: World | LifelikeWorld,
        clip: Clip,
        motions: tuple[Motion, ...],
        things: tuple[int | None, ...],
    ) -> Case:
        # A clip is what a camera would have stored; then the true clip is exactly what is written down of it.
        pixels = to_uint8(clip.frames)
        scene = Scene(image=Image.fromarray(pixels[0]), motions=motions)
        grid = Grid(width=self.width, height=self.height, num_frames=self.num_frames, stride=1)
        tracks = tracks_of(scene, grid).tracks
        masks = torch.stack(
            [
                inside(torch.from_numpy(track.boxes), self.width, self.height)
                * (1 if thing is None else clip.masks[thing])
                for track, thing in zip(tracks, things, strict=True)
            ]
        )
        kinds = list(path_kinds(tracks))
        if camera_moves(clip):
            kinds.append("camera")
        if any(t is not None and hidden_share(clip.masks[t], clip.boxes[t]) > HIDDEN for t in things):
            kinds.append("occlusion")
        case = Case(
            name=name,
            scene=scene,
            truth=from_uint8(pixels),
            masks=masks,
            source={"dataset": "world", "scene_set": self.scene_set, "world": {**asdict(world), "kind": world.kind}},
            rule=RULE,
        )
        return with_kinds(case, *kinds)


def inside(boxes: Float[Tensor, "f 4"], width: int, height: int) -> Float[Tensor, "f h w"]:
    """1 where a pixel's centre lies in the box (left, top, right, bottom; pixels), a pixel wider for soft edges."""
    x = torch.arange(width) + 0.5
    y = (torch.arange(height) + 0.5)[:, None]
    left, top, right, bottom = boxes[..., None, None].unbind(1)
    return ((x >= left - 1) & (x <= right + 1) & (y >= top - 1) & (y <= bottom + 1)).float()


def camera_moves(clip: Clip) -> bool:
    """True where the camera moves the frame's edge by more than a pixel."""
    pan, zoom = clip.camera[:, :2].abs().amax(), (clip.camera[:, 2] - 1).abs().amax()
    return bool(pan + zoom * max(clip.frames.shape[-2:]) / 2 > 1)


def thing_motion(clip: Clip, thing: int, *, part: bool = False) -> Motion:
    """The motion a person would ask for: the box of a thing, or of a part of it, on the first frame, and its path."""
    height, width = clip.frames.shape[-2:]
    left, top, right, bottom = clip.boxes[thing, 0].tolist()
    centers = clip.centers[thing].double().numpy()
    if part:
        # The upper left of it: what is rigid moves there as it does as a whole.
        right, bottom = left + _PART * (right - left), top + _PART * (bottom - top)
        centers = centers - centers[0] + np.array([(left + right) / 2, (top + bottom) / 2])
    # An outline's reach may stand out of the frame by a rounding error.
    box = Box(left=max(left, 0), top=max(top, 0), right=min(right, width), bottom=min(bottom, height))
    if not np.ptp(centers, axis=0).any():
        return Motion(box=box, name="thing")
    size = (clip.boxes[thing, :, 2:] - clip.boxes[thing, :, :2]).double().prod(-1).sqrt()
    grown = (size / size[0]).tolist()
    scales = [1.0 if abs(scale - 1) < 1e-3 else scale for scale in grown]
    return Motion(box=box, path=_keys(centers, scales), name="part" if part else "thing")


def camera_motion(clip: Clip) -> Motion:
    """A box on the background that stays in the frame, as far from the things as may be, moved by the camera."""
    height, width = clip.frames.shape[-2:]
    frame = np.array([width, height], dtype=np.float64)
    zoom = clip.camera[:, 2:].double().numpy()
    half = 0.14 * frame
    best, found = -np.inf, np.zeros((len(zoom), 2))
    for x in np.linspace(0.15, 0.85, 8):
        for y in np.linspace(0.15, 0.85, 8):
            centers = _seen(clip, np.array([x, y]) * frame)
            edge = np.minimum(centers - half * zoom, frame - centers - half * zoom).min()
            far = np.abs(clip.centers.double().numpy() - centers).max(-1).min()
            if (score := min(edge, 0.0) * 4 + far) > best:
                best, found = score, centers
    (left, top), (right, bottom) = np.maximum(found[0] - half, 0), np.minimum(found[0] + half, frame)
    box = Box(left=float(left), top=float(top), right=float(right), bottom=float(bottom))
    if not np.ptp(found, axis=0).any() and not np.ptp(zoom):
        return Motion(box=box, kind="camera", name="background")
    return Motion(box=box, kind="camera", path=_keys(found, zoom[:, 0].tolist()), name="background")


def _seen(clip: Clip, place: np.ndarray) -> np.ndarray:
    """The place in every frame [f, 2], in pixels, of a place (x, y) on the first frame's background."""
    if clip.kind == "lifelike":  # whose camera rolls and shakes, too
        view = clip.layers.poses[0, -1].double().numpy()
        first = np.linalg.solve(view[0, :, :2], place - view[0, :, 2])
        rolled: np.ndarray = view[..., :2] @ first + view[..., 2]
        return rolled
    pan, zoom = clip.camera[:, :2].double().numpy(), clip.camera[:, 2:].double().numpy()
    middle = np.array(clip.frames.shape[:-3:-1]) / 2
    moved: np.ndarray = (place - middle - pan) * zoom + middle
    return moved


def _keys(centers: np.ndarray, scales: list[float]) -> tuple[Key, ...]:
    times = frame_times(len(centers)).tolist()
    return tuple(
        Key(time=time, x=x, y=y, scale=scale)
        for time, (x, y), scale in zip(times, centers.tolist(), scales, strict=True)
    )
