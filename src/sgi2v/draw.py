"""Boxes and paths over frames, previews of a scene, and clips side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.grid import Track
from sgi2v.scene import Scene

Color = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: Final[tuple[Color, ...]] = (
    (255, 224, 51),
    (75, 190, 255),
    (255, 120, 200),
    (0, 214, 150),
    (255, 128, 30),
    (150, 140, 255),
    (225, 60, 60),
)
"""For objects in their order: Okabe and Ito's hues, which the colour-blind tell apart, lightened for photographs."""
CAMERA_COLOR: Final[Color] = (255, 255, 255)
_HALO: Final[Color] = (12, 14, 20)
"""Laid under every line, so that it shows on light and dark alike."""
_MOVED: Final = 0.75
"""Line widths; a path that stays closer than this to its start is a pin."""
_TITLE_BACK: Final = (24, 26, 32)


def draw_tracks(frames: Float32[Tensor, "f 3 h w"], tracks: Sequence[Track]) -> Float32[Tensor, "f 3 h w"]:
    """Copies of frames (RGB, 0..1) with every track's path and its box at that frame.

    Objects are solid, each in its own colour; camera boxes dashed and white. The travelled part of a path is
    bright, the rest faint, with an arrow head at the end and a dot where the box's centre should be now. Track
    boxes are in pixels of the frames; ValueError if a track has another number of frames.
    """
    num_frames, _, height, width = frames.shape
    for index, track in enumerate(tracks):
        if len(track.boxes) != num_frames:
            raise FieldError(
                f"tracks[{index}]",
                f"{len(track.boxes)} frames",
                f"give {num_frames}, as many as there are pictures",
            )
    drawn = []
    for number, frame in enumerate(frames):
        canvas = _Canvas(width, height)
        for track, color in _colored(tracks):
            _draw_path(canvas, track, color, number)
        for track, color in _colored(tracks):
            _draw_box(canvas, track, color, number, opacity=1.0)
        drawn.append(canvas.over(frame.permute(1, 2, 0).cpu().numpy()))
    pictures = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    return pictures.to(frames.device)


def preview(scene: Scene, num_frames: int = 14, max_side: int = 1600) -> Image.Image:
    """The scene's image with its boxes, where they end (faint) and their paths; no model is needed.

    A path has a tick at each of `num_frames` frames, so that its speed shows; masks are tinted. An image whose
    longer side has more than `max_side` pixels is shown at that size.
    """
    shrink = min(1.0, max_side / max(scene.image.size))
    width, height = (max(1, round(side * shrink)) for side in scene.image.size)
    image = scene.image if shrink == 1 else scene.image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32) / 255
    tracks = []
    for motion in scene.motions:
        boxes = motion.boxes_at([frame / max(num_frames - 1, 1) for frame in range(num_frames)])
        corners = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes]) * shrink
        mask = None if motion.mask is None else motion.mask.convert("L").resize((width, height))
        tracks.append(Track(boxes=corners.astype(np.float32), kind=motion.kind, name=motion.name, mask=mask))
    canvas = _Canvas(width, height)
    for track, color in _colored(tracks):
        if track.mask is not None:
            tint = np.asarray(track.mask, dtype=np.float32)[..., None] / 255 * np.float32(0.35)
            pixels = pixels * (1 - tint) + np.asarray(color, dtype=np.float32) / 255 * tint
        if track.kind == "object" and _moves(track, canvas.line):
            _draw_box(canvas, track, color, -1, opacity=0.55)
    for track, color in _colored(tracks):
        _draw_path(canvas, track, color, num_frames - 1, ticks=True)
    for track, color in _colored(tracks):
        _draw_box(canvas, track, color, 0, opacity=1.0)
    return Image.fromarray((canvas.over(pixels) * 255).round().astype(np.uint8))


def side_by_side(clips: Sequence[tuple[str, Float32[Tensor, "f 3 h w"]]]) -> Float32[Tensor, "f 3 H W"]:
    """Clips of one shape next to each other, each under its title; both sides of the result are even.

    ValueError without clips and for clips of different shapes.
    """
    if not clips:
        raise FieldError("clips", "none", "give at least one title and clip")
    shape = clips[0][1].shape
    for index, (_, frames) in enumerate(clips):
        if frames.shape != shape:
            raise FieldError(
                f"clips[{index}]",
                f"{tuple(frames.shape)} is another shape than the first's",
                f"give {tuple(shape)}",
            )
    num_frames, _, height, width = shape
    text = max(9, round(math.sqrt(width * height) / 22))
    bar, gap = 2 * text, 2 * max(1, text // 6)
    total = len(clips) * width + (len(clips) - 1) * gap
    sheet = Image.new("RGB", (total + total % 2, height + bar + height % 2), _TITLE_BACK)
    for index, (title, _) in enumerate(clips):
        sheet.paste(_title(title, width, bar, text), (index * (width + gap), 0))
    empty = torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255).permute(2, 0, 1)
    result = empty.expand(num_frames, -1, -1, -1).clone().to(clips[0][1].device)
    for index, (_, frames) in enumerate(clips):
        left = index * (width + gap)
        result[:, :, bar : bar + height, left : left + width] = frames
    return result


@dataclass
class _Canvas:
    """A transparent sheet drawn several times as large and averaged down, so that lines are smooth."""

    width: int
    height: int

    def __post_init__(self) -> None:
        self.zoom = 4 if max(self.width, self.height) <= 640 else 2
        self.line = max(1.25, 0.0048 * math.sqrt(self.width * self.height))
        """Pixels of the frame: a line's width, so that a small frame is not covered and a large one not bare."""
        self.sheet = Image.new("RGBA", (self.width * self.zoom, self.height * self.zoom))
        self.pen = ImageDraw.Draw(self.sheet)

    def stroke(self, points: Sequence[Point], color: Color, opacity: float, line: float = 1.0) -> None:
        """A polyline with round corners and ends on its halo; `line` in line widths."""
        for ink, wide, alpha in ((_HALO, line + 0.9, 0.6), (color, line, 1.0)):
            fill = (*ink, round(255 * opacity * alpha))
            size = wide * self.line * self.zoom
            shown = [(x * self.zoom, y * self.zoom) for x, y in points]
            self.pen.line(shown, fill=fill, width=max(1, round(size)), joint="curve")
            for x, y in (shown[0], shown[-1]):
                self.pen.ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=fill)

    def dashes(self, points: Sequence[Point], color: Color, opacity: float, line: float = 1.0) -> None:
        """Like `stroke`, each straight part in dashes that meet at its corners."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0)
            count = 2 * max(1, round(length / (7 * self.line))) + 1
            for dash in range(0, count, 2):
                start, end = dash / count, (dash + 1) / count
                ends = [(x0 + (x1 - x0) * at, y0 + (y1 - y0) * at) for at in (start, end)]
                self.stroke(ends, color, opacity, line)

    def dot(self, x: float, y: float, color: Color, radius: float, rim: Color, opacity: float = 1.0) -> None:
        """A disc in a rim; `radius` in line widths, without the rim."""
        for ink, size in ((_HALO, radius + 1.1), (rim, radius + 0.7), (color, radius)):
            r = size * self.line * self.zoom
            x_, y_ = x * self.zoom, y * self.zoom
            self.pen.ellipse((x_ - r, y_ - r, x_ + r, y_ + r), fill=(*ink, round(255 * opacity)))

    def arrow(self, points: Sequence[Point], color: Color, opacity: float) -> Point:
        """An arrow head with its tip at the last point, along the way the last stretch comes; returns its neck."""
        reach = 5.5 * self.line
        x, y = points[-1]
        from_x, from_y = next((p for p in reversed(points) if math.dist(p, (x, y)) >= reach), points[0])
        angle = math.atan2(y - from_y, x - from_x)
        x, y = x - 0.55 * reach * math.cos(angle), y - 0.55 * reach * math.sin(angle)
        for ink, grown, alpha in ((_HALO, 0.8, 0.6), (color, 0.0, 1.0)):
            corners = []
            for turn, radius in ((0.0, 0.55), (2.5, 0.75), (math.pi, 0.3), (-2.5, 0.75)):
                far = radius * reach + grown * self.line
                at_x, at_y = x + far * math.cos(angle + turn), y + far * math.sin(angle + turn)
                corners.append((at_x * self.zoom, at_y * self.zoom))
            self.pen.polygon(corners, fill=(*ink, round(255 * opacity * alpha)))
        return x, y

    def over(self, pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        """The sheet laid over pixels in 0..1."""
        # RGBa: multiplied by its opacity, else averaging would mix in the black of what is transparent.
        ink = np.asarray(self.sheet.convert("RGBa").reduce(self.zoom), dtype=np.float32) / 255
        over: Float32[np.ndarray, "h w 3"] = pixels * (1 - ink[..., 3:]) + ink[..., :3]
        return over


def _colored(tracks: Sequence[Track]) -> list[tuple[Track, Color]]:
    """Camera tracks first, so that objects lie on top of them."""
    colored, objects = [], 0
    for track in tracks:
        color = CAMERA_COLOR if track.kind == "camera" else PALETTE[objects % len(PALETTE)]
        objects += track.kind != "camera"
        colored.append((track, color))
    return sorted(colored, key=lambda pair: pair[0].kind != "camera")


def _moves(track: Track, line: float) -> bool:
    """True if it moves so far that a path can be seen."""
    return bool(np.abs(track.boxes - track.boxes[:1]).max() > _MOVED * line)


def _draw_box(canvas: _Canvas, track: Track, color: Color, frame: int, opacity: float) -> None:
    left, top, right, bottom = (float(value) for value in track.boxes[frame])
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    if track.kind == "camera":
        canvas.dashes(corners, color, 0.9 * opacity, 0.7)
    elif opacity < 1:
        canvas.stroke(corners, color, opacity, 0.6)
    else:
        canvas.stroke(corners, color, opacity)
    if opacity == 1:
        x, y = (left + right) / 2, (top + bottom) / 2
        small = track.kind == "camera"
        canvas.dot(x, y, color, 0.8 if small else 1.5, color if small else (255, 255, 255))


def _draw_path(canvas: _Canvas, track: Track, color: Color, frame: int, ticks: bool = False) -> None:
    """The path up to a frame bright, the rest faint; with `ticks` a dot for every frame."""
    if not _moves(track, canvas.line):
        return
    points = [(float(x), float(y)) for x, y in track.centers]
    line = 0.6 if track.kind == "camera" else 1.0
    draw = canvas.dashes if track.kind == "camera" and not ticks else canvas.stroke
    # The line ends in the neck of the arrow head; drawn to its tip it would make that blunt.
    neck = canvas.arrow(points, color, 1.0)
    near = math.dist(neck, points[-1])
    way = [point for point in points[:-1] if math.dist(point, points[-1]) > near] or points[:1]
    frame = min(frame, len(way))
    way.append(neck)
    if frame < len(way) - 1:
        draw(way[frame:], color, 0.55, line)
    if frame > 0:
        draw(way[: frame + 1], color, 1.0, line)
    if ticks and track.kind == "object":
        for x, y in way[1:-1]:
            canvas.dot(x, y, color, 0.5, color)
    canvas.arrow(points, color, 1.0)


def _title(text: str, width: int, height: int, size: int) -> Image.Image:
    """A bar with centred text at most `size` pixels high, drawn large and averaged down like all lines."""
    large = 4
    sheet = Image.new("RGB", (width * large, height * large), _TITLE_BACK)
    wanted = float(size * large)
    if (needed := ImageFont.load_default(wanted).getlength(text)) > 0.95 * sheet.width:
        wanted *= 0.95 * sheet.width / needed
    font = ImageFont.load_default(max(1.0, wanted))
    ImageDraw.Draw(sheet).text((sheet.width / 2, sheet.height / 2), text, "white", font, anchor="mm")
    return sheet.reduce(large)
