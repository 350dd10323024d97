"""Wanted motion in other people's pictures: Time-to-Move's folders, box videos, masks of video data sets."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from sgi2v.cut_and_drag import dragged_clip
from sgi2v.errors import FieldError
from sgi2v.exchange.paths import lost_always, motion_of_boxes
from sgi2v.files import read_file
from sgi2v.grid import Grid, tracks_of
from sgi2v.images import MAX_PIXELS, load_image, png_bytes
from sgi2v.lazy import cv2
from sgi2v.listing import listed
from sgi2v.reference import load_reference, read_clip
from sgi2v.scene import MAX_KEYS, MAX_MOTIONS, Box, Scene, frame_times
from sgi2v.writing import write_files

TTM: Final = ("first_frame.png", "motion_signal.mp4", "mask.mp4", "prompt.txt")
FPS: Final = 16
"""Of written clips, whose times a scene does not know; Time-to-Move's own for Wan."""
_COLOURS: Final = ((255, 64, 64), (64, 255, 64), (64, 64, 255), (255, 255, 64), (255, 64, 255), (64, 255, 255))
_NEAR: Final = 90.0
"""Distance in RGB within which a pixel of a compressed video has a box's colour."""
_DARK: Final = 60
"""Brightest channel of what counts as black in such a video."""
_LEAST: Final = 12
"""Pixels of a box's line or a mask's thing below which it is a speck."""


def read_time_to_move(folder: Path) -> Scene:
    """A Time-to-Move input: first_frame.png, motion_signal.mp4, mask.mp4, and maybe prompt.txt."""
    reference = load_reference(folder / TTM[1], folder / TTM[2] if (folder / TTM[2]).is_file() else None)
    prompt = (
        read_file(folder / TTM[3], "prompt").decode("utf-8", "replace").strip() if (folder / TTM[3]).is_file() else ""
    )
    return Scene(image=load_image(folder / TTM[0]), reference=reference, prompt=prompt)


def write_time_to_move(scene: Scene, folder: Path, num_frames: int) -> list[str]:
    """Writes a scene as Time-to-Move reads it: its own reference, or the cut-and-drag clip of its motions.

    Sides are made even by leaving out a last row or column, as H.264 wants it. Returns what was lost.
    """
    width, height = (side - side % 2 for side in scene.image.size)
    image = scene.image.crop((0, 0, width, height))
    if scene.reference is None:
        grid = Grid(width=scene.image.width, height=scene.image.height, num_frames=num_frames, stride=1)
        clip = dragged_clip(tracks_of(replace(scene, fit="stretch"), grid), num_frames)
        frames = (clip.frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        masks = ((clip.masks > 0.5).byte() * 255).numpy()[..., None].repeat(3, axis=3)
    else:
        pairs = scene.reference.at(num_frames)
        frames = np.stack([np.asarray(frame.resize(scene.image.size)) for frame, _ in pairs])
        masks = np.stack([np.asarray(mask.convert("RGB").resize(scene.image.size, 0)) for _, mask in pairs])
    write_files(
        folder,
        {
            TTM[0]: png_bytes(image),
            TTM[1]: mp4_bytes(frames[:, :height, :width], FPS),
            TTM[2]: mp4_bytes(masks[:, :height, :width], FPS),
            TTM[3]: (scene.prompt + "\n").encode(),
        },
    )
    lost = ["boxes and paths: only the clip that they make is there"] if scene.motions else []
    return lost + (["a last row or column"] if (width, height) != scene.image.size else [])


def mp4_bytes(frames: UInt8[np.ndarray, "f h w 3"], fps: int) -> bytes:
    """Frames as an H.264 video, nearly lossless; sides must be even."""
    import io

    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "6", "preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def read_box_video(path: Path, photo: Image.Image) -> tuple[Scene, list[str]]:
    """MagicMotion's boxes: a video of coloured rectangles on black, on its first frame maybe filled; a colour a thing.

    Its frames have any size; boxes are carried over to the photo's.
    """
    frames = read_clip("boxes", [path])
    sides = np.array(photo.size) / np.array(frames[0].size)
    colours = _colours(np.asarray(frames[0]))
    if not colours:
        raise FieldError("boxes", f"{path} begins with no coloured box on black", "give a video of boxes")
    found: dict[int, list[Box | None]] = {k: [] for k in range(len(colours))}
    for frame in frames:
        pixels = np.asarray(frame, dtype=np.float32)
        distance = np.stack([np.linalg.norm(pixels - np.array(one, np.float32), axis=2) for one in colours])
        nearest = np.where(pixels.max(axis=2) > _DARK, distance.argmin(axis=0), -1)
        for k in found:
            found[k].append(_around((nearest == k) & (distance[k] < _NEAR), sides))
    return _scene_of_boxes(photo, list(found.values()))


def _colours(first: UInt8[np.ndarray, "h w 3"]) -> list[tuple[float, ...]]:
    """The colours of the boxes on a frame, the largest first: groups of bright pixels, each within reach of its middle.

    Of filled boxes their inside is asked: at edges a compressed video mixes colours. Of lines, which have none, what is
    far rarer than the largest group counts as such a mixture.
    """
    mask = (first.max(axis=2) > _DARK).astype(np.uint8)
    inner = cv2.erode(mask, np.ones((5, 5), np.uint8))
    filled = int(inner.sum()) >= _LEAST
    bright = first[(inner if filled else mask) > 0].astype(np.float32)
    found: list[tuple[float, ...]] = []
    least = float(_LEAST)
    while len(bright) >= least and len(found) < MAX_MOTIONS:
        values, counts = np.unique((bright // 32).astype(int), axis=0, return_counts=True)
        middle = values[counts.argmax()] * 32 + 16
        near = np.linalg.norm(bright - middle, axis=1) < _NEAR
        if near.sum() < least:
            break
        least = max(least, 0.0 if filled else 0.2 * float(near.sum()))
        found.append(tuple(float(v) for v in np.median(bright[near], axis=0)))
        bright = bright[np.linalg.norm(bright - np.array(found[-1]), axis=1) >= _NEAR]
    return found


def _around(mask: np.ndarray, sides: np.ndarray) -> Box | None:
    """The box around a mask's pixels, without specks, carried over by ``sides``; None for none."""
    count, parts, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = [k for k in range(1, count) if figures[k, cv2.CC_STAT_AREA] >= _LEAST]
    rows, columns = np.nonzero(np.isin(parts, large))
    if not len(rows):
        return None
    left, right = float(columns.min() * sides[0]), float((columns.max() + 1) * sides[0])
    return Box(left=left, top=float(rows.min() * sides[1]), right=right, bottom=float((rows.max() + 1) * sides[1]))


def write_box_video(scene: Scene, path: Path, num_frames: int) -> list[str]:
    """Writes a scene as MagicMotion's boxes: filled on the first frame, then lines; and the photo beside it as PNG."""
    width, height = (side - side % 2 for side in scene.image.size)
    things = scene.motions[: len(_COLOURS)]
    frames = []
    boxes = [motion.boxes_at(frame_times(num_frames)) for motion in things]
    for index in range(num_frames):
        frame = Image.new("RGB", (width, height))
        draw = ImageDraw.Draw(frame)
        for colour, each in zip(_COLOURS, boxes, strict=False):
            box = each[index]
            corners = (round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1)
            if corners[2] > corners[0] and corners[3] > corners[1]:
                line = max(2, min(width, height) // 100)
                draw.rectangle(corners, outline=colour, fill=None if index else colour, width=line)
        frames.append(np.asarray(frame))
    write_files(path.parent, {path.name: mp4_bytes(np.stack(frames), FPS), f"{path.stem}.png": png_bytes(scene.image)})
    lost = (
        [f"{len(scene.motions) - len(things)} motions beyond {len(things)}"] if len(scene.motions) > len(things) else []
    )
    return lost + lost_always(scene)


def read_masks(folder: Path, photo: Path | None) -> tuple[Scene, list[str]]:
    """DAVIS's and VIPSeg's masks: a folder of PNGs, one a frame, whose values are things; 0 is none.

    The photo is the frame that belongs to the first mask: given, or found where the data sets keep it (JPEGImages
    beside Annotations, imgs beside panomasks). Each thing's box and mask are those of its pixels.
    """
    files = listed(folder, (".png",))
    if not 1 <= len(files) <= MAX_KEYS:
        raise FieldError("masks", f"{len(files)} files", f"give 1 to {MAX_KEYS}")
    image = load_image(photo or _frame_of(files[0]), "photo")
    labels = [_labels(file, image.size) for file in files]
    ids = [int(one) for one in np.unique(labels[0]) if one]
    lost = [f"{len(ids) - MAX_MOTIONS} things"] if len(ids) > MAX_MOTIONS else []
    boxes = [[_around(each == one, np.ones(2)) for each in labels] for one in ids[:MAX_MOTIONS]]
    scene, more = _scene_of_boxes(image, boxes, [f"thing {one}" for one in ids])
    motions = []
    for motion in scene.motions:
        mask = labels[0] == int(motion.name.split()[1])
        motions.append(replace(motion, mask=Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))))
    later = set(np.unique(np.concatenate([np.unique(each) for each in labels])).tolist()) - {0, *ids}
    lost += [f"{len(later)} things that come later"] if later else []
    return replace(scene, motions=tuple(motions)), [*lost, *more, "outlines after the first frame"]


def _frame_of(mask: Path) -> Path:
    text = mask.as_posix()
    for ours, theirs in (("Annotations", "JPEGImages"), ("panomasks", "imgs"), ("panomasks", "images")):
        for ending in (".jpg", ".png", ".jpeg"):
            place = re.sub(rf"/{ours}/(?!.*/{ours}/)", f"/{theirs}/", text)
            if place != text and (found := Path(place).with_suffix(ending)).is_file():
                return found
    raise FieldError("photo", f"no frame is found for {mask.name}", "give it with --photo")


def _labels(file: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS or image.size != size:
                raise FieldError(str(file), f"{image.size} pixels, the photo has {size}", "give masks of its size")
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise FieldError(str(file), f"a picture of mode {image.mode}", "give masks with a value a thing")
            return np.asarray(image).astype(np.int32)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FieldError(str(file), "cannot be read as a mask", "fetch it again") from error


def _scene_of_boxes(
    photo: Image.Image, boxes: Sequence[Sequence[Box | None]], names: Sequence[str] = ()
) -> tuple[Scene, list[str]]:
    motions: list[Any] = []
    lost: list[str] = []
    for index, each in enumerate(boxes):
        motion, more = motion_of_boxes(each, photo.size, names[index] if names else f"thing {index + 1}")
        motions += [motion] if motion else []
        lost += more
    return Scene(image=photo, motions=tuple(motions)), lost
