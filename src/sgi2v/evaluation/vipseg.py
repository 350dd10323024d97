"""VIPSeg from a local folder: clips, boxes and paths from its masks by a fixed protocol (docs/benchmark.md)."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Int32
from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.evaluation.datasets import Case, path_kinds
from sgi2v.evaluation.vipseg_list import Clip, Thing, load_list
from sgi2v.grid import Grid, fit_image, tracks_of
from sgi2v.images import load_image
from sgi2v.listing import listed, natural_key
from sgi2v.scene import Box, Key, Motion, Scene, frame_times
from sgi2v.video import from_uint8

_LAYOUTS: Final = (("imgs", "panomasks"), ("images", "panomasks"))  # as published, and the 720P form
_FRAMES: Final = (".jpg", ".jpeg")
_VOID: Final = (0, 200)  # 200 is a known fault of the annotation
_LAST_STUFF: Final = 124  # above it: class * 100 + instance


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Rules by which clips and objects are chosen; every number here changes the table."""

    min_share: float = 0.01
    """Least share of the first frame that a thing's mask covers."""
    max_share: float = 0.4
    """Largest share."""
    min_visible: float = 0.3
    """Least share of its first area that a thing keeps in every frame."""
    moving: float = 0.03
    """A box centre that moves by this share of the frame's diagonal moves; one that stays closer is pinned."""
    max_things: int = 4
    """At most so many things of a clip: those that move first, then by area."""

    def __post_init__(self) -> None:
        if not 0 < self.min_share < self.max_share <= 1 or self.max_things < 1:
            raise FieldError(
                "protocol",
                f"needs 0 < min_share < max_share <= 1 and max_things >= 1, got {self.min_share}, "
                f"{self.max_share}, {self.max_things}",
            )


@dataclass(frozen=True, kw_only=True)
class VIPSeg:
    """Clips of VIPSeg with true frames and masks; `load_vipseg` makes it."""

    root: Path
    layout: tuple[str, str]
    entries: tuple[Clip | ValueError, ...]
    """Clips in the order of the list of videos, and in their place the reasons of those left out."""
    protocol: Mapping[str, object]
    """Rules by which they were chosen: a `Protocol`'s fields, or what a list of clips says of itself."""
    width: int
    height: int
    num_frames: int

    def __len__(self) -> int:
        """Clips, those left out included."""
        return len(self.entries)

    @property
    def clips(self) -> list[Clip]:
        """The usable ones."""
        return [entry for entry in self.entries if isinstance(entry, Clip)]

    @property
    def left_out(self) -> list[str]:
        """Reasons why the others are not usable."""
        return [str(entry) for entry in self.entries if not isinstance(entry, Clip)]

    def __getitem__(self, index: int) -> Case:
        """A clip at the model's size; ValueError naming the file for one that cannot be used."""
        entry = self.entries[index]
        if not isinstance(entry, Clip):
            raise entry
        images, masks = (self.root / name / entry.video for name in self.layout)
        frame_of, mask_of = _by_name(images, _FRAMES), _by_name(masks, (".png",))
        first = frame_of.get(entry.frames[0], images / f"{entry.frames[0]}.jpg")
        found = hashlib.sha256(first.read_bytes()).hexdigest() if first.is_file() else "missing"
        if found != entry.first_frame_sha256:
            raise FieldError(
                str(first),
                f"is not the frame that the list of clips was made from (sha256 {found[:12]}…, not "
                f"{entry.first_frame_sha256[:12]}…)",
                "use the same form of VIPSeg",
            )
        frames, things = [], []
        for name in entry.frames:
            file = frame_of.get(name, images / f"{name}.jpg")
            image = load_image(file)
            _same_size(image.size, entry.size, file)
            frames.append(np.asarray(fit_image(image, self.width, self.height, "stretch")))
            ids = read_mask(mask_of.get(name, masks / f"{name}.png"), entry.size)
            small = Image.fromarray(ids).resize((self.width, self.height), Image.Resampling.NEAREST)
            things.append([np.asarray(small) == thing.id for thing in entry.things])
        scene = Scene(image=load_image(first), motions=tuple(_motion(thing) for thing in entry.things))
        grid = Grid(width=self.width, height=self.height, num_frames=self.num_frames, stride=1)
        return Case(
            name=f"vipseg-{entry.video}",
            scene=scene,
            truth=from_uint8(np.stack(frames)),
            masks=torch.from_numpy(np.array(things)).transpose(0, 1).float().contiguous(),
            kinds=path_kinds(tracks_of(scene, grid).tracks),
            still_camera=False,  # nobody knows; most of these videos were filmed by hand
            source={"dataset": "vipseg", "protocol": dict(self.protocol)},
        )


def load_vipseg(
    folder: Path,
    *,
    width: int,
    height: int,
    num_frames: int = 14,
    limit: int | None = None,
    clips: Path | None = None,
    protocol: Protocol | None = None,
) -> VIPSeg:
    """The first `limit` usable validation clips (all by default), at a model's size in pixels.

    folder: what holds imgs/ and panomasks/ (as published) or images/ and panomasks/ (720P), or VIPSeg/ or
    VIPSeg_720P/ that does. clips: a list that `save_list` wrote, taken as it is instead of choosing anew.

    Clips that cannot be used keep their place and say why when they are asked for. ValueError for a folder that is no
    VIPSeg, or a list of another length of clips.
    """
    protocol = protocol or Protocol()
    chosen_by: Mapping[str, object] = asdict(protocol)
    root, layout = _find(folder)
    if clips is not None:
        listed, chosen_by = load_list(clips)
        if any(len(clip.frames) != num_frames for clip in listed):
            raise FieldError(str(clips), f"its clips have not {num_frames} frames", "choose them anew")
        entries: list[Clip | ValueError] = list(listed[:limit])
    else:
        entries, usable = [], 0
        for video in _videos(root, layout):
            if limit is not None and usable >= limit:
                break
            try:
                entries.append(choose(root, layout, video, num_frames, protocol))
                usable += 1
            except ValueError as error:
                entries.append(error)
    if not entries:
        raise FieldError("vipseg", f"{root} holds no videos")
    return VIPSeg(
        root=root,
        layout=layout,
        entries=tuple(entries),
        protocol=chosen_by,
        width=width,
        height=height,
        num_frames=num_frames,
    )


def choose(root: Path, layout: tuple[str, str], video: str, num_frames: int, protocol: Protocol) -> Clip:
    """The clip of a video and its things, by the protocol; ValueError naming the file where there is none."""
    images, masks = (root / name / video for name in layout)
    if not images.is_dir() or not masks.is_dir():
        raise FieldError(str(masks if images.is_dir() else images), "no such folder")
    frame_of, mask_of = _by_name(images, _FRAMES), _by_name(masks, (".png",))
    chosen = sorted({*frame_of, *mask_of}, key=natural_key)[:num_frames]
    for name in chosen:
        for file, there, other in (
            (images / f"{name}.jpg", frame_of, "mask"), (masks / f"{name}.png", mask_of, "frame"),
        ):  # fmt: skip
            if name not in there:
                raise FieldError(str(file), f"missing, but its {other} is there")
    if len(chosen) < num_frames:
        raise FieldError(str(images), f"{len(chosen)} frames are too short a clip", f"it needs {num_frames}")
    first = frame_of[chosen[0]]
    size = load_image(first).size
    ids = np.stack([read_mask(mask_of[name], size) for name in chosen])
    things = _things(ids, protocol)
    if not any(len(thing.path) for thing in things):
        raise FieldError(str(masks), f"no thing of the right size is seen in all {num_frames} frames and moves")
    return Clip(
        video=video,
        frames=tuple(chosen),
        first_frame_sha256=hashlib.sha256(first.read_bytes()).hexdigest(),
        size=size,
        things=things,
    )


def _things(ids: Int32[np.ndarray, "f h w"], protocol: Protocol) -> tuple[Thing, ...]:
    """Things seen in every frame, those that move first, then by area; ids are the masks' values."""
    _, height, width = ids.shape
    found: list[tuple[bool, int, Thing]] = []
    values, counts = np.unique(ids[0], return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        share = count / (height * width)
        if value <= _LAST_STUFF or not protocol.min_share <= share <= protocol.max_share:
            continue
        mask = ids == value
        if mask.sum((1, 2)).min() < protocol.min_visible * count:
            continue
        boxes = np.array([_box(frame) for frame in mask], dtype=np.float64)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        way = np.hypot(*(centers - centers[0]).T).max()
        moves = bool(way > protocol.moving * np.hypot(width, height))
        path = tuple((float(x), float(y)) for x, y in centers) if moves else ()
        left, top, right, bottom = boxes[0].tolist()
        found.append((not moves, -count, Thing(id=value, box=(left, top, right, bottom), path=path)))
    found.sort(key=lambda one: (one[0], one[1], one[2].id))
    return tuple(thing for _, _, thing in found[: protocol.max_things])


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight half-open box (left, top, right, bottom) of a mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _motion(thing: Thing) -> Motion:
    left, top, right, bottom = thing.box
    times = frame_times(max(1, len(thing.path))).tolist()
    keys = tuple(Key(time=time, x=x, y=y) for time, (x, y) in zip(times, thing.path, strict=False))
    box = Box(left=left, top=top, right=right, bottom=bottom)
    return Motion(box=box, path=keys, name=f"thing {thing.id}")


def read_mask(file: Path, size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """The values of a 16-bit panoptic mask of `size` (width, height), void and known faults as 0.

    ValueError naming the file when it is missing, damaged, of another size or of another kind.
    """
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.mode not in ("I", "I;16", "L"):
                raise FieldError(str(file), f"a mask of kind {image.mode}", "give the 16-bit ones (panomasks)")
            _same_size(image.size, size, file)
            ids = np.asarray(image).astype(np.int32)
            if image.mode == "L":
                _check_uncut(file, ids)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FieldError(str(file), "cannot be read as a mask", "fetch it again") from error
    ids[np.isin(ids, _VOID)] = 0
    return ids


def _check_uncut(file: Path, ids: Int32[np.ndarray, "h w"]) -> None:
    """FieldError for an 8-bit mask with ids above what is no thing: an image tool has cut them off; 255 is void."""
    cut = (ids > _LAST_STUFF) & (ids < 255)
    if cut.any():
        value = int(ids[cut][0])
        raise FieldError(str(file), f"8 bits, with the value {value}, which is no thing's", "give the 16-bit masks")
    ids[ids == 255] = 0


def _same_size(found: tuple[int, int], wanted: tuple[int, int], file: Path) -> None:
    if found != wanted:
        raise FieldError(str(file), f"{found[0]}x{found[1]} pixels, the first frame has {wanted[0]}x{wanted[1]}")


def _by_name(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """A folder's files by their names without the ending, which cameras and tools write in several ways."""
    files = listed(folder, suffixes) if folder.is_dir() else []
    found: dict[str, Path] = {}
    for file in files:
        if found.setdefault(file.stem, file) != file:
            raise FieldError(str(file), f"{found[file.stem].name} has the same name", "keep one of them")
    return found


def _find(folder: Path) -> tuple[Path, tuple[str, str]]:
    for root in (folder, folder / "VIPSeg", folder / "VIPSeg_720P"):
        for layout in _LAYOUTS:
            if all((root / name).is_dir() for name in layout):
                return root, layout
    raise FieldError(
        "vipseg",
        f"{folder} holds neither imgs/ and panomasks/ nor images/ and panomasks/",
        "give VIPSeg's folder",
    )


def _videos(root: Path, layout: tuple[str, str]) -> Sequence[str]:
    """The validation videos of val.txt, beside the frames or above them; without it every video."""
    for place in (root / "val.txt", root.parent / "val.txt"):
        if place.is_file():
            names = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
            bad = [name for name in names if name in (".", "..") or "/" in name or "\\" in name]
            if bad:
                raise FieldError(str(place), f"{bad[0]!r} is no name of a video")
            return [name for name in names if name]
    return sorted(place.name for place in listed(root / layout[0]) if place.is_dir())
