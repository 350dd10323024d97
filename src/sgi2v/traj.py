"""The scenes published with SG-I2V, folders of img.png and traj.npy, read and written."""

import io
import os
import tokenize
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from sgi2v.checks import shown
from sgi2v.errors import FieldError, within
from sgi2v.files import read_file
from sgi2v.images import load_image, png_bytes, stays
from sgi2v.scene import MAX_KEYS, MAX_MOTIONS, Box, Key, Motion, Scene, frame_times
from sgi2v.writing import write_files


def load_traj(folder: str | os.PathLike[str]) -> Scene:
    """A scene as published with SG-I2V (arXiv 2411.04989): a folder of img.png and traj.npy.

    traj.npy: float64 [N, 2+F, 2], or numbers of another real type that float64 holds; (x, y) in pixels of img.png:
    rows 0-1 the top-left and bottom-right corners of the box on frame 0, then its centre at each of F frames. Every
    frame becomes a key, so nothing is lost.
    Raises ValueError for another shape or type, pickled objects, and boxes that no scene may have.
    """
    folder = Path(folder)
    if not (folder / "traj.npy").is_file():
        raise FieldError("scene", f"{folder} holds neither scene.json nor traj.npy", "give a scene's file or folder")
    tracks = _read_traj(folder / "traj.npy")
    times = [float(time) for time in frame_times(tracks.shape[1] - 2)]
    motions = []
    for index, ((left, top), (right, bottom), *centers) in enumerate(tracks.tolist()):
        with within(f"traj.npy[{index}]"):
            box = Box(left=left, top=top, right=right, bottom=bottom)
            path = tuple(Key(time=time, x=x, y=y) for time, (x, y) in zip(times, centers, strict=True))
            motions.append(Motion(box=box, path=path))
    return Scene(image=load_image(folder / "img.png"), motions=tuple(motions))


def save_traj(
    scene: Scene,
    folder: str | os.PathLike[str],
    num_frames: int = 14,
    *,
    keep: Collection[Path] = frozenset(),
) -> Path:
    """Writes a scene as the published img.png and traj.npy (see `load_traj`) with `num_frames` centres a box.

    Names, kinds, masks, prompts and fit have no place there and are left out; a changing scale is refused. An img.png
    that is one of `keep`, the pictures of the scene itself, is not written anew (:func:`sgi2v.images.stays`).
    """
    if num_frames < 2:
        raise FieldError("num_frames", f"{num_frames} is too few", "give 2 or more")
    tracks = np.zeros((len(scene.motions), 2 + num_frames, 2))
    for index, motion in enumerate(scene.motions):
        if any(key.scale != 1 for key in motion.path):
            raise FieldError(f"motions[{index}].path", "its scale changes, which traj.npy cannot hold", "save as JSON")
        tracks[index, :2] = (motion.box.left, motion.box.top), (motion.box.right, motion.box.bottom)
        tracks[index, 2:] = motion.centers(num_frames)
    file = io.BytesIO()
    np.save(file, tracks, allow_pickle=False)
    picture = {} if stays(Path(folder) / "img.png", scene.image, keep) else {"img.png": png_bytes(scene.image)}
    write_files(Path(folder), {**picture, "traj.npy": file.getvalue()})
    return Path(folder)


def _read_traj(path: Path) -> Float64[np.ndarray, "motions rows 2"]:
    data = read_file(path, "traj.npy")
    wanted = "give numbers [boxes, 2 + frames, 2], saved with numpy.save"
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        # The header is looked at first: it may declare more than the file holds, or than there is memory.
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, dtype = read_header[version](file)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise FieldError("traj.npy", f"{path} is not a NumPy array file", wanted) from error
    if dtype.kind not in "fiu":
        raise FieldError("traj.npy", f"its type is {shown(str(dtype))}", wanted)
    if len(shape) != 3 or shape[0] < 0 or shape[1] < 4 or shape[2] != 2:
        raise FieldError("traj.npy", f"its shape is {shown(shape)}", f"{wanted}, with 2 frames or more")
    if shape[0] > MAX_MOTIONS or shape[1] - 2 > MAX_KEYS:
        raise FieldError("traj.npy", f"its shape is {shape}", f"give at most {MAX_MOTIONS} boxes and {MAX_KEYS} frames")
    if len(data) - file.tell() != dtype.itemsize * shape[0] * shape[1] * shape[2]:
        raise FieldError("traj.npy", f"{len(data)} bytes are not what its shape {shape} needs", "copy the file again")
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    with np.errstate(over="ignore"):
        exact = array.astype(np.float64)
    if not _is_exact(array, exact):
        raise FieldError("traj.npy", f"it holds numbers of type {array.dtype} that float64 cannot hold", wanted)
    return exact


def _is_exact(array: np.ndarray, converted: Float64[np.ndarray, "motions rows 2"]) -> bool:
    """True where float64 holds the very numbers; what is no finite number is found with its field."""
    if array.dtype.kind in "iu":
        return not array.size or (int(array.min()) >= -(2**53) and int(array.max()) <= 2**53)
    return bool(((converted == array) | np.isnan(array)).all())
