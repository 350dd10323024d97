"""Frames to mp4, gif and png, with the record of the run that made them inside, and clips of any kind to frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Float32, UInt8
from PIL import Image, PngImagePlugin

from sgi2v import clip_files, clip_pictures
from sgi2v.checks import choice
from sgi2v.clip_colour import EXACT
from sgi2v.clip_files import PROVENANCE_KEY, RUN_KEY, SIZE_KEY
from sgi2v.errors import FieldError
from sgi2v.lazy import torch
from sgi2v.listing import is_litter
from sgi2v.provenance import credentials, watermark
from sgi2v.provenance.identity import Signatory
from sgi2v.records import Json
from sgi2v.signatures import CONTAINERS, Kind, is_clip, kind_of
from sgi2v.video_tag import NOTE, RUN_FILE, Provenance, Recording, folder_tag, gif_tag, tag
from sgi2v.writing import cannot_write, check_place, reason, writing

SUFFIXES: Final = (".mp4", ".gif", "")
_BT709: Final = 1  # the number of BT.709 in H.264's tables of primaries, transfer and matrix
_CRF: Final = 16  # x264's quality: visually lossless
MAX_TOTAL_PIXELS: Final = 400_000_000  # of all frames of a clip that is read: 4.8 GB as float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """A clip and where it came from.

    Shapes: frames is float32 `[frames, 3, height, width]`, RGB in 0..1, not rounded to 8 bits.
    Raises: ValueError on an empty clip or a frame rate that is not a positive number.
    """

    frames: Float32[torch.Tensor, "frames 3 height width"]
    """RGB in 0..1, unrounded: metrics read these, never a lossy file."""
    fps: float = 7.0
    """Frames a second."""
    run: Json | None = None
    """The JSON record of the run that made the clip, with its images embedded; None where there is none."""
    noise: Float32[torch.Tensor, "n c y x"] | None = None
    """Unit noise that the run began from, on the host; None for a clip that was read."""
    latents: Float32[torch.Tensor, "n c y x"] | None = None
    """Clean latents that the frames were decoded from, normalised as the network sees them, likewise."""
    record: Recording = "light"
    """Record that a file of it carries unless told otherwise; see :meth:`recorded`."""
    provenance: Provenance = "on"
    """Credentials and mark that a file of it gets; off for a clip that was read, whose pixels keep what they have."""

    def __post_init__(self) -> None:
        """Refuse what no container can hold."""
        if self.frames.numel() == 0:
            raise FieldError("frames", f"{tuple(self.frames.shape)} is empty", "give at least one frame")
        if not 0 < self.fps <= 1000:
            raise FieldError("fps", f"{self.fps} is not a frame rate", "give a number above 0 and up to 1000")

    def recorded(self, record: Recording) -> Video:
        """The clip with no more of its run than a file shall carry.

        `full`: the picture as it was given. `light`: the picture at the clip's size, as the model saw it, from which
        a replay is equal all the same (:func:`sgi2v.light.lightened`). `none`: nothing.
        """
        choice("record", record, Recording)
        run = None if record == "none" else self.run
        if run is not None and record == "light":
            from sgi2v.light import lightened

            run = lightened(run)
        return replace(self, run=run, record=record)

    def save(
        self,
        path: str | Path,
        *,
        record: Recording | None = None,
        provenance: Provenance | None = None,
        signatory: Signatory | None = None,
    ) -> Path:
        """Write the clip to `path`: .mp4, .gif, or a folder of PNG frames (a name without a suffix).

        Its run goes along as `record` has it, by default as the clip's own :attr:`record`, which is light; so do, as
        `provenance` has it, credentials that `signatory` signs, or else whoever is chosen on this machine, and the mark
        in the pixels of an mp4 or gif (docs/provenance.md). What cannot be signed is written unsigned, with a warning.

        The file is made under a temporary name beside `path` and renamed when whole; after any error, Ctrl-C
        included, nothing is left. Missing parent folders are made. An mp4 of odd width or height is padded to
        even (yuv420p has one colour for 2×2 pixels) by repeating its last column or row; load_video cuts it off.
        Raises: ValueError naming the path when it cannot be written, or when a frame is not finite.
        """
        path = Path(path)
        check_writable(path)
        whole = replace(self.recorded(record or self.record), provenance=provenance or self.provenance)
        choice("provenance", whole.provenance, Provenance)
        with writing(path) as temporary:
            _writer(path)(whole, temporary)
            if whole.provenance == "on":
                files = [temporary] if path.suffix else clip_pictures.frames_of(temporary)
                credentials.sign(files, whole.run, _mark(whole) if path.suffix else None, signatory)
        return path


def check_writable(path: str | Path) -> None:
    """Find out before any expensive work whether `Video.save(path)` will be able to write.

    Writes a megabyte to a nameless file in the nearest folder that exists and removes it; makes no folder.
    Raises: ValueError naming the path and what would be right.
    """
    path = Path(path)
    _writer(path)
    try:
        _check_replaceable(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    check_place(path)


def load_video(path: str | Path, *, max_pixels: int = MAX_TOTAL_PIXELS) -> Video:
    """Read a video (mp4, mov, webm, mkv, avi), an animated gif, WebP, PNG or AVIF, or a folder of frames.

    A file's kind is told by its content. Its colours, rotation and times are as it says them (docs/clips.md); its run
    comes with it if it has one, which mp4, gif and folders do that `Video.save` wrote.
    Returns: frames float32 `[frames, 3, height, width]`, RGB in 0..1, rounded to 8 bits by the file.
    Raises: ValueError naming the path when it is missing, broken, not a video, or too large (64 megapixels a
    frame, `max_pixels` in all, said before more than these are decoded).
    """
    path = Path(path)
    with _readable(path):
        kind = _kind(path)
        if kind is None:
            clip = clip_pictures.read_folder(path, max_pixels)
        elif kind in CONTAINERS:
            clip = clip_files.read(path, max_pixels)
        else:
            clip = clip_pictures.read(path, kind, max_pixels)
    return Video(frames=from_uint8(np.stack(clip.pixels)), fps=clip.fps, run=clip.run, provenance="off")


def check_video(path: str | Path, *, max_pixels: int = MAX_TOTAL_PIXELS) -> None:
    """Raise the ValueError that `load_video` would, in a fraction of its time.

    Seen are the sizes and, of a file, the first and the last picture; of a folder every file's checksums.
    """
    path = Path(path)
    with _readable(path):
        kind = _kind(path)
        if kind is None:
            clip_pictures.check_folder(path, max_pixels)
        elif kind in CONTAINERS:
            clip_files.check(path, max_pixels)
        else:
            clip_pictures.check(path, kind, max_pixels)


def read_run(path: str | Path) -> Json:
    """Read the record of the run that made a file or folder, without decoding its frames.

    Raises: ValueError naming the path when it cannot be read or carries no run.
    """
    path, run = Path(path), None
    with _readable(path):
        kind = _kind(path)
        if kind is None:
            run = folder_tag(path)["run"]
        elif kind in CONTAINERS:
            run = clip_files.read_run(path)
        elif kind == "GIF":
            with Image.open(path, formats=("GIF",)) as image:
                run = gif_tag(image)["run"]
    if not isinstance(run, dict):
        raise FieldError("video", f"{path} carries no sgi2v run", "give a file that sgi2v wrote")
    return run


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever the readers of libraries raise on a file, as one line that names it."""
    try:
        yield
    except FieldError as error:
        if str(path) in error.problem:
            raise
        raise FieldError("video", f"cannot read {path}: {error.problem}", error.remedy) from error
    except clip_files.UNREADABLE as error:
        raise FieldError("video", f"cannot read {path}: {_why(error)}") from error


def _kind(path: Path) -> Kind | None:
    """The kind of a clip's file, None for a folder; FieldError for what is no clip."""
    if path.is_dir():
        return None
    if path.exists() and not path.is_file():
        raise FieldError("video", f"{path} is no file", "give one, or a folder of frames")  # a pipe would wait for ever
    with path.open("rb") as file:
        kind = kind_of(file)
        if not is_clip(file):
            what = "it holds one picture" if kind else "it is no video of a known kind, or it is damaged"
            raise FieldError("video", f"cannot read {path}: {what}", "give an mp4, mov, webm, mkv, avi, gif or WebP")
    return kind


def to_uint8(frames: Float32[torch.Tensor, "f 3 h w"]) -> UInt8[np.ndarray, "f h w 3"]:
    """Round RGB frames in 0..1 to 8 bits, channels last; what lies outside is clipped. ValueError on NaN or inf."""
    if not torch.isfinite(frames).all():
        raise FieldError("frames", "some pixels are NaN or infinite", "run the model with --dtype float32")
    rounded = (frames.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy())


def from_uint8(frames: UInt8[np.ndarray, "f h w 3"]) -> Float32[torch.Tensor, "f 3 h w"]:
    """8-bit frames, channels last, to float32 RGB in 0..1, channels first."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).to(torch.float32) / 255


def _mark(video: Video) -> str | None:
    """The mark's name where a film of the video gets it."""
    height, width = video.frames.shape[2:]
    return watermark.NAME if video.provenance == "on" and watermark.is_markable(height, width) else None


def _film(video: Video) -> UInt8[np.ndarray, "f h w 3"]:
    """The frames as they are written to an mp4 or gif."""
    pixels = to_uint8(video.frames)
    return watermark.marked(pixels) if _mark(video) else pixels


def _said(video: Video, mark: str | None) -> Json:
    """Remark on the provenance that a file was meant to get; what it has, verify finds out."""
    return {"provenance": video.provenance, "watermark": mark}


def _save_mp4(video: Video, path: Path) -> None:
    pixels = _film(video)
    height, width = pixels.shape[1:3]
    pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # use_metadata_tags keeps keys of our own; faststart puts them and the index before the pictures.
    options = {"movflags": "faststart+use_metadata_tags"}
    with av.open(f"file:{path}", "w", format="mp4", options=options) as container:
        container.metadata["comment"] = NOTE
        container.metadata[SIZE_KEY] = f"{width}x{height}"
        container.metadata[PROVENANCE_KEY] = json.dumps(_said(video, _mark(video)))
        if video.run is not None:
            container.metadata[RUN_KEY] = json.dumps(video.run, allow_nan=False)
        rate = Fraction(video.fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(_CRF), "preset": "medium"})
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(
                stream.encode(
                    frame.reformat(
                        format="yuv420p",
                        dst_colorspace=Colorspace.ITU709,
                        interpolation=EXACT,
                        src_color_range=ColorRange.JPEG,
                        dst_color_range=ColorRange.MPEG,
                    )
                )
            )
        container.mux(stream.encode(None))


def _save_gif(video: Video, path: Path) -> None:
    pixels = _film(video)
    palette = _palette(pixels)
    images = [Image.fromarray(image).quantize(palette=palette) for image in pixels]
    # A gif counts in hundredths of a second: each frame ends at the nearest one, so that errors do not add up.
    ends = np.round(np.arange(len(images) + 1) * 100 / video.fps).astype(int)
    durations = [int(d) * 10 for d in np.maximum(np.diff(ends), 1)]
    said = tag(video.fps, video.run, _said(video, _mark(video)))
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False,
        comment=json.dumps(said, allow_nan=False).encode("ascii"),
    )  # fmt: skip


def _palette(pixels: UInt8[np.ndarray, "f h w 3"]) -> Image.Image:
    """One palette for the whole clip, from at most 200 000 of its pixels: colours do not flicker."""
    every = max(1, -(-pixels[..., 0].size // 200_000))
    sample = pixels.reshape(-1, 3)[::every]
    return Image.fromarray(sample[None]).quantize(colors=256, method=Image.Quantize.MEDIANCUT)


def _save_folder(video: Video, path: Path) -> None:
    path.mkdir()
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", NOTE)
    for index, image in enumerate(to_uint8(video.frames)):
        Image.fromarray(image).save(path / f"frame_{index:04d}.png", pnginfo=note)
    (path / RUN_FILE).write_text(
        json.dumps(tag(video.fps, video.run, _said(video, None)), allow_nan=False, indent=1) + "\n", encoding="utf-8"
    )


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return reason(error)
    return "it is no video of this kind, or it is damaged"


def _writer(path: Path) -> Callable[[Video, Path], None]:
    """The function that writes this kind of file; ValueError on a kind that is not written."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.name:
        raise FieldError(
            "output",
            f"{str(path)!r} is no kind of video that is written here",
            "end its name in .mp4 or .gif, or give a folder (a name without a suffix) for PNG frames",
        )
    return {".mp4": _save_mp4, ".gif": _save_gif, "": _save_folder}[suffix]


def _check_replaceable(path: Path) -> None:
    """Raise ValueError where something stands that must not be overwritten."""
    if path.suffix and path.is_dir():
        raise FieldError("output", f"{path} is a folder", "name a file in it")
    if not path.suffix and path.exists():
        if not path.is_dir():
            raise FieldError("output", f"{path} is a file", "name a folder, or a file ending in .mp4")
        ours = (p for p in path.iterdir() if not is_litter(p))
        others = [p.name for p in ours if p.name != RUN_FILE and not clip_pictures.is_frame(p)]
        if others:
            raise FieldError(
                "output",
                f"the folder {path} holds other things than frames ({sorted(others)[0]})",
                "name a new folder, or a file in it ending in .mp4 or .gif",
            )
