"""Options of the commands, but for `generate`, whose options are those of the model and the method."""

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction

from sgi2v.backbones.base import Memory
from sgi2v.cli.prompts import NOTHING_SAID, MotionPrompts
from sgi2v.exchange import Form
from sgi2v.opening import DType
from sgi2v.video_tag import Provenance, Recording

T = TypeVar("T")


def to_be_said(default: T, *fields: str) -> T:
    """A copy of some default options in which these fields have no default: the person must give them."""
    default = copy(default)
    for field in fields:
        object.__setattr__(default, field, tyro.MISSING)  # past the class's own checks, which know only real values
    return default


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """Draw a scene's boxes and paths on its image, to see what is asked for; no model is loaded."""

    scene: Positional[Path]
    """A photo, a scene.json, a folder that holds one, or a folder with img.png and traj.npy."""
    output: Path | None = None
    """The picture (.png or .jpg); replaced if it is there. Default: out/<name of the scene>.png."""
    num_frames: int = 14
    """Ticks on a path: one for every frame of the video."""
    prompts: OmitArgPrefixes[MotionPrompts] = NOTHING_SAID


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Write a scene anew with a mask for every moving object that has none, cut out of its box by GrabCut.

    Look at them with sgi2v preview: masks are tinted. Boxes should reach a little beyond the thing.
    """

    scene: Positional[Path]
    """A photo, a scene.json, a folder that holds one, or a folder with img.png and traj.npy."""
    output: Path | None = None
    """A name ending in .json, or a folder for scene.json; image and masks go beside it. Default: out/<name of the
    scene>-masks."""
    anew: bool = False
    """Make a mask for objects that have one too."""
    at: UseAppendAction[tuple[str, ...]] = ()
    """A click: the thing under x,y, in pixels or per cent, gets a mask; "45%,60% -> 80%,60%" also says where it goes.
    Say --at again for another."""
    segmenter: Path | None = None
    """A folder of SAM 2 in transformers' layout that finds the outline. Default: GrabCut, which is built in."""
    device: str | None = None
    """Device of that network: cpu, cuda, mps …; default: the best that this machine has."""
    prompts: OmitArgPrefixes[MotionPrompts] = NOTHING_SAID


@dataclass(frozen=True, kw_only=True)
class SayOptions:
    """Write the scene that a sentence means, and its preview; no video is made.

    Things are found among the scene's named ones and those of --box, else by the detector of --detector.
    """

    scene: Positional[Path]
    """A photo, a scene.json, a folder that holds one, or a folder with img.png and traj.npy."""
    sentence: Positional[str]
    """As in "the cup moves to the right and grows, the camera zooms in slowly"; the grammar is in docs/say.md."""
    box: UseAppendAction[tuple[str, ...]] = ()
    """A thing and its box, name=left,top,right,bottom in pixels or per cent. Say --box again for another."""
    detector: Path | None = None
    """A folder of Grounding DINO or OWLv2 in transformers' layout, which finds what is named."""
    threshold: float = 0.3
    """Least score of what the detector finds, 0 to 1."""
    mask: bool = False
    """Cut the moving things out of their boxes too, as sgi2v mask does."""
    segmenter: Path | None = None
    """A folder of SAM 2 that does that. Default: GrabCut."""
    output: Path | None = None
    """A folder for scene.json, its pictures and preview.png. Default: out/<name of the scene>-said."""
    device: str | None = None
    """Device of the networks: cpu, cuda, mps …; default: the best that this machine has."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Write a scene, or another project's file of wanted motion, in another form; what has no place there is said.

    Read by content: scenes, photos, Time-to-Move's folders, KJNodes' splines, tracks for ATI and Wan-Move,
    DragAnything's JSON, MagicMotion's box videos, DAVIS's and VIPSeg's masks.
    """

    scene: Positional[Path]
    """A photo, a scene.json, a folder that holds one, a folder with img.png and traj.npy, or another's file."""
    output: Positional[Path]
    """A name ending in .json for JSON, in .npy for Wan-Move, .pth for ATI, .mp4 for MagicMotion; else a folder for
    img.png and traj.npy. Replaced if they are there."""
    to: Form | None = None
    """The form to write, where the name does not say it: time-to-move (a folder), splines, drag-anything (.json)."""
    photo: Path | None = None
    """The picture of a file that holds none. Default: the one of the same name beside it."""
    embed: bool = False
    """Put image and masks into the JSON instead of beside it."""
    num_frames: int = 14
    """Frames of what holds a place for each."""
    prompts: OmitArgPrefixes[MotionPrompts] = NOTHING_SAID


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Make a video again from nothing but the record in its file."""

    video: Positional[Path]
    """An mp4, a gif or a folder of frames that sgi2v wrote."""
    backbone: str | None = None
    """The model, where the record may not name it by itself: a folder or a hub id. Its weights must be the same."""
    output: Path | None = None
    """The video (.mp4 or .gif), or a folder for PNG frames. Default: <name>-replay beside the original."""
    record: Recording = "light"
    """Record in the new file: light (with the picture as the model saw it), full (as the original has it), or none."""
    provenance: Provenance = "on"
    """Signed credentials in the file and, in an mp4 or gif, an invisible mark in the pixels, or off: neither."""
    noise: Path | None = None
    """The file of noise that the video began from, where it was given one. Its values must be the same."""
    reference_latents: Path | None = None
    """The file of the reference clip's latents, likewise."""
    transformer: Path | None = None
    """The file of the transformer's weights, where the video was made with one. Its weights must be the same."""
    transformer_2: Path | None = None
    """The file of the second network's, likewise."""
    quantise: Literal["int8", "fp8"] | None = None
    """Rounding of the weights, likewise."""
    lora: tuple[str, ...] = ()
    """The LoRA files, FILE[:weight][:high or :low], where the video was made with some."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps …; default: the best that this machine has. Another device rounds differently."""
    memory: Memory = "auto"
    """Use of the device's memory: fast, balanced, low, or auto: the first of these that fits what is free. The
    video is the same; the time is not."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Encode prompts once, for a model that reads them; so that others, or other machines, need no text encoder."""

    texts: Positional[tuple[str, ...]] = ()
    """The prompts and negative prompts, each in quotes."""
    backbone: str = "wan2.2-i2v-a14b"
    """The model whose text encoder is used: a name, a folder or a hub id."""
    dtype: DType | None = None
    """Number format of the rows; default: the model's own on this machine's best device."""
    output: Path | None = None
    """A .safetensors file to be brought to another machine; default: they are only kept in this machine's cache."""
    add: Path | None = None
    """Takes such a file into this machine's cache; no prompts then."""


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Say what is installed and found here: versions, devices, memory, models."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Try out this installation: versions, devices, folders, a clip of two steps, the studio's port, a browser."""

    output: Path = Path("out")
    """Folder in which clips are meant to lie."""
    port: int = 7860
    """Port that the studio is meant to have."""
    device: str | None = None
    """Device for the clip: cpu, cuda, mps …; default: the best that this machine has."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Make a shipped scene move on the bundled model, without control and with it, and compare the two."""

    output: Path = Path("out")
    """Folder for demo.mp4, no_control.mp4, side_by_side.mp4 and sheet.png; replaced if they are there."""
    scene: str = "shapes"
    """Scene of the package: shapes, which the bundled model can draw, or the photographs cat, coffee,
    galaxies and rocket, which it blurs."""
    backbone: str = "bundled"
    """The model: bundled, svd, svd-xt, a folder or a hub id."""
    seed: int = 817
    """Seed of both clips."""
    num_steps: int | None = None
    """Denoising steps; default: what the model recommends."""
    device: str = "cpu"
    """Device that computes: cpu, cuda, mps …"""
    memory: Memory = "auto"
    """Use of the device's memory: fast, balanced, low, or auto: the first of these that fits what is free. The
    video is the same; the time is not."""
    provenance: Provenance = "on"
    """Signed credentials in the files and an invisible mark in the pixels of the videos, or off: neither."""
    quiet: bool = False
    """Show no progress."""
