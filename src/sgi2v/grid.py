"""From pixels and video frames to latent cells: what a scene becomes at a model's size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int64

from sgi2v.errors import FieldError
from sgi2v.reference import Reference
from sgi2v.scene import Fit, Motion, Scene


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A clip's size in pixels and in latent cells; the only place that knows strides."""

    width: int
    """Width of a frame in pixels."""
    height: int
    """Height of a frame in pixels."""
    num_frames: int
    """Frames of the video."""
    stride: int = 8
    """Pixels per latent cell, both ways."""
    frame_stride: int = 1
    """Video frames per latent frame after the first (1 for SVD, 4 for models with a causal video autoencoder)."""
    channels: int = 4
    """Channels of the latents."""

    @property
    def rows(self) -> int:
        """Latent cells from top to bottom."""
        return self.height // self.stride

    @property
    def columns(self) -> int:
        """Latent cells from left to right."""
        return self.width // self.stride

    @property
    def latent_frames(self) -> int:
        """Latent frames of the clip."""
        return 1 + (self.num_frames - 1) // self.frame_stride

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(frames, channels, rows, columns) of the latents."""
        return self.latent_frames, self.channels, self.rows, self.columns

    def group(self, latent_frame: int) -> range:
        """The video frames that a latent frame stands for: the first alone, then ``frame_stride`` at a time."""
        last = latent_frame * self.frame_stride
        return range(max(last - self.frame_stride + 1, 0), last + 1)

    def cells(self, boxes: Float32[np.ndarray, "*n 4"]) -> Int64[np.ndarray, "*n 4"]:
        """Half-open (top, left, bottom, right) in latent cells of boxes (left, top, right, bottom) in pixels.

        Floor towards minus infinity and at least one cell (SG-I2V, published code); cells may lie outside the grid.
        """
        low = np.floor(boxes / np.float32(self.stride)).astype(np.int64)
        left, top, right, bottom = (low[..., k] for k in range(4))
        return np.stack([top, left, np.maximum(top + 1, bottom), np.maximum(left + 1, right)], axis=-1)

    def coverage(self, pixels: Float32[np.ndarray, "*n h w"]) -> Float32[np.ndarray, "*n y x"]:
        """The mean over the pixels of each latent cell: of a mask (0..1), the share of the cell that it covers."""
        blocks = (*pixels.shape[:-2], self.rows, self.stride, self.columns, self.stride)
        kept = pixels[..., : self.rows * self.stride, : self.columns * self.stride]
        share: Float32[np.ndarray, "*n y x"] = kept.reshape(blocks).mean(axis=(-3, -1))
        return share


@dataclass(frozen=True, kw_only=True)
class Track:
    """One motion of a scene at a model's size: where its box lies in every frame."""

    boxes: Float32[np.ndarray, "f 4"]
    """(left, top, right, bottom) per frame, pixels of the resized image; may leave the image after frame 0."""
    kind: Literal["object", "camera"] = "object"
    name: str = ""
    mask: PIL.Image.Image | None = None
    """The object's outline on frame 0, an 'L' image of the resized image's size; None: the whole box."""

    @property
    def centers(self) -> Float32[np.ndarray, "f 2"]:
        """Box centres (x, y) per frame, pixels of the resized image."""
        middle: Float32[np.ndarray, "f 2"] = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        return middle


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """A whole scene at a model's size: the resized image and one track per motion."""

    image: PIL.Image.Image
    tracks: tuple[Track, ...]
    reference: Reference | None = None
    """The person's own clip at the resized image's size, with one frame and mask ('L') per frame of the video."""

    def boxes(self, frames: Sequence[int]) -> Float32[np.ndarray, "n f 4"]:
        """Boxes of all tracks at the given video frames, pixels of the resized image."""
        if not self.tracks:
            return np.zeros((0, len(frames), 4), dtype=np.float32)
        return np.stack([track.boxes[list(frames)] for track in self.tracks])

    def part(self, share: float) -> "Tracks":
        """The same, every box on the way from its first place to its own, so far as ``share`` (0..1) says."""
        if share == 1:
            return self
        tracks = (
            replace(track, boxes=track.boxes[:1] + np.float32(share) * (track.boxes - track.boxes[:1]))
            for track in self.tracks
        )
        return replace(self, tracks=tuple(tracks))

    def latent_boxes(self, grid: Grid) -> Float32[np.ndarray, "n k 4"]:
        """Boxes of all tracks at every latent frame: the mean over the video frames that it stands for."""
        means = [self.boxes(grid.group(k)).mean(axis=1, dtype=np.float32) for k in range(grid.latent_frames)]
        return np.stack(means, axis=1)

    def check_first_boxes(self) -> None:
        """FieldError when a first box leaves the resized image.

        The loss copies its target from there. Only a scene that is cropped to the model's shape (fit: cover) can
        come to this; a scene checks its own image.
        """
        width, height = self.image.size
        for index, track in enumerate(self.tracks):
            left, top, right, bottom = (float(v) for v in track.boxes[0])
            if left < 0 or top < 0 or right > width or bottom > height:
                raise FieldError(
                    f"motions[{index}].box",
                    f"({left:.1f}, {top:.1f}, {right:.1f}, {bottom:.1f}) leaves the {width}x{height} picture the "
                    "model sees",
                    "move it inside, or use fit: stretch or contain",
                )


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Place of the source image in the resized picture: scaled to ``size``, its corner at ``offset``."""

    size: tuple[int, int]
    offset: tuple[int, int]


def placement(source: tuple[int, int], target: tuple[int, int], fit: Fit) -> Placement:
    """Place of a picture of one size (width, height) in one of another, by a scene's ``fit``."""
    if fit == "stretch":
        return Placement(size=target, offset=(0, 0))
    ratios = [target[k] / source[k] for k in range(2)]
    factor = min(ratios) if fit == "contain" else max(ratios)  # of aspect what is over is cut, as of cover
    width, height = (max(1, round(source[k] * factor)) for k in range(2))
    return Placement(size=(width, height), offset=((target[0] - width) // 2, (target[1] - height) // 2))


def fit_image(image: PIL.Image.Image, width: int, height: int, fit: Fit) -> PIL.Image.Image:
    """The image at a model's size, by Pillow's bicubic filter.

    ``stretch`` ignores the aspect ratio (as published), ``cover`` (and ``aspect``) crops what hangs over, ``contain``
    repeats the edge pixels outwards, since black bars are no part of any photo a model was trained on.
    """
    place = placement(image.size, (width, height), fit)
    resized = image.resize(place.size, PIL.Image.Resampling.BICUBIC)
    if place.size == (width, height):
        return resized
    pixels = np.asarray(resized)
    rows = np.clip(np.arange(height) - place.offset[1], 0, place.size[1] - 1)
    columns = np.clip(np.arange(width) - place.offset[0], 0, place.size[0] - 1)
    return PIL.Image.fromarray(pixels[rows][:, columns])


def shown_part(source: tuple[int, int], target: tuple[int, int], fit: Fit) -> tuple[int, int, int, int]:
    """Half-open (left, top, right, bottom) in a model's picture of what is of the image: all but contain's padding."""
    place = placement(source, target, fit)
    left, top = (max(offset, 0) for offset in place.offset)
    return left, top, min(left + place.size[0], target[0]), min(top + place.size[1], target[1])


def _track(motion: Motion, scene: Scene, grid: Grid) -> Track:
    # The published order of operations, in float32: scale every coordinate, then move the first box by the
    # difference of centres. Any other order puts an edge that lies on a cell border into the neighbouring cell.
    source = np.array(scene.image.size, dtype=np.float32)
    place = placement(scene.image.size, (grid.width, grid.height), scene.fit)
    size, offset = (np.array(v, dtype=np.float32) for v in (place.size, place.offset))
    centers = motion.centers(grid.num_frames).astype(np.float32) * size / source
    box = motion.box
    corners = np.array([[box.left, box.top], [box.right, box.bottom]], dtype=np.float32) * size / source + offset
    boxes = corners[None] + (centers - centers[:1])[:, None]
    scales = motion.scales(grid.num_frames).astype(np.float32)
    grown = scales != 1
    if grown.any():
        middle = boxes.mean(axis=1, keepdims=True)
        boxes = np.where(grown[:, None, None], middle + (boxes - middle) * scales[:, None, None], boxes)
    mask = None
    if motion.mask is not None:
        # Not 0 is the thing, whatever the number; only then may edges be smoothed.
        whole = motion.mask.convert("L").point(lambda value: 255 if value else 0)
        mask = fit_image(whole, grid.width, grid.height, scene.fit)
    return Track(boxes=boxes.reshape(-1, 4).astype(np.float32), kind=motion.kind, name=motion.name, mask=mask)


def tracks_of(scene: Scene, grid: Grid) -> Tracks:
    """A scene at a grid's size: image resized by ``scene.fit``, boxes per frame in pixels of the resized image.

    Source: SG-I2V's published data preparation (see the project's notes on the method, Input).
    """

    def fitted(picture: PIL.Image.Image) -> PIL.Image.Image:
        return fit_image(picture, grid.width, grid.height, scene.fit)

    reference = None
    if scene.reference is not None:
        pairs = scene.reference.at(grid.num_frames)
        frames, masks = (tuple(fitted(pair[k]) for pair in pairs) for k in (0, 1))
        reference = Reference(frames=frames, masks=masks)
    return Tracks(
        image=fitted(scene.image),
        tracks=tuple(_track(motion, scene, grid) for motion in scene.motions),
        reference=reference,
    )
