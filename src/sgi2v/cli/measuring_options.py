"""Options of the measuring commands: benchmark, report, features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from sgi2v.opening import ModelChoice


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions:
    """Networks that describe clips, so that sets of clips can be compared."""

    inception: Annotated[Path | None, arg(aliases=("--inception",))] = None
    """Weights of the Inception-v3 of 2015 (pt_inception, as a state dict), for FID and KID."""
    inception_sha256: Annotated[str | None, arg(aliases=("--inception-sha256",))] = None
    """The SHA-256 that this file must have."""
    i3d: Annotated[Path | None, arg(aliases=("--i3d",))] = None
    """Weights of I3D trained on Kinetics-400 (as a state dict), for FVD and KVD; clips of at least 9 frames."""
    i3d_sha256: Annotated[str | None, arg(aliases=("--i3d-sha256",))] = None
    """The SHA-256 that this file must have."""
    clip_features: bool = True
    """Describe clips by the small network in the package too; its distances are no FID and no FVD."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Run scenes x methods x seeds and measure every clip; run the same command again to go on after any interruption.

    Scenes are rendered ones that training never saw, unless --scenes or --vipseg names a folder.
    """

    rows: Path = Path("out/benchmark/rows.jsonl")
    """File of the rows; clips and their features go beside it. What is there already is not made again."""
    methods: tuple[str, ...] = ()
    """Names (still, paste, true, reconstructed, none, sg-i2v, …) or label='{"name": "sg-i2v", "lr": 0.1}'. Default:
    everything there is."""
    seeds: tuple[int, ...] = (817,)
    """Seeds of the noise; every method runs with each."""
    limit: int | None = None
    """Number of scenes; default: 16 rendered ones, or all of a folder."""
    scene_set: int = 0
    """Set of rendered scenes: 0 is the test split, 1 and up are for choosing settings."""
    variety: Literal["one", "mixed"] = "one"
    """Rendered scenes: 'one' kind with one thing, or 'mixed': several things, a part, curves, occlusion, camera."""
    kind: Literal["simple", "rich", "lifelike"] = "simple"
    """Kind of rendered world; with variety mixed lifelike, or else simple and, where the camera moves, rich."""
    num_things: int = 1
    """Things in a rendered scene, with variety one."""
    scenes: Path | None = None
    """A folder of scenes (scene.json, or img.png and traj.npy); nothing is known about what really happens there."""
    vipseg: Path | None = None
    """VIPSeg's folder, as it is published or in the 720P form."""
    vipseg_clips: Path | None = None
    """A list of VIPSeg clips and boxes as --save-vipseg-clips wrote it, instead of choosing them anew."""
    save_vipseg_clips: Path | None = None
    """Write the chosen VIPSeg clips and boxes to this file (.json), for others to use."""
    num_steps: int | None = None
    """Denoising steps; default: what the model recommends."""
    width: int | None = None
    """Pixels; default: what the model recommends."""
    height: int | None = None
    """Pixels; default: what the model recommends."""
    num_frames: int | None = None
    """Frames; default: what the model recommends."""
    model: OmitArgPrefixes[ModelChoice]
    tracker: Literal["template", "points", "flow", "cotracker3"] = "template"
    """Tracker that follows the things; cotracker3 needs its weights and its authors' package."""
    tracker_weights: Path | None = None
    """Weights of CoTracker3."""
    extractors: ExtractorOptions
    retry: bool = False
    """Try rows again that failed before."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Turn a benchmark's rows into tables, and a page that plays all methods' clips side by side."""

    rows: Positional[Path]
    """The file of rows that sgi2v benchmark wrote."""
    output: Path | None = None
    """Folder for table.md, table.tex, table.html and the page index.html; replaced if it is there. Default: beside
    the rows, <rows>.report."""
    clips: Path | None = None
    """Folder of the clips, where they do not lie beside the rows."""
    baseline: str = "none"
    """The method that ratios compare with."""
    page: bool = True
    """Make the page with the clips too."""


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """Draw what the network's layers see in a scene: principal components of features over all frames, as colours."""

    scene: Positional[Path]
    """A scene.json, a folder that holds one, or a folder with img.png and traj.npy."""
    output: Path | None = None
    """The picture (.png); replaced if it is there. Default: out/<name of the scene>-features.png."""
    attention: str | None = None
    """The block whose self, temporal and first-frame attention is shown, as in up_blocks.2.attentions.1; default: the
    last one that SG-I2V reads on this model. The output shown is that of the level it lies in."""
    remaining: tuple[int, ...] = ()
    """Steps still to go at which to look (the number of steps is pure noise, 1 the last one); default: four of them."""
    seed: int = 817
    """Seed of the noise."""
    num_steps: int | None = None
    """Denoising steps; default: what the model recommends."""
    model: OmitArgPrefixes[ModelChoice]
    quiet: bool = False
    """Show no progress."""
