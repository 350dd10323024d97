"""The command probe: which layers of a model know where a thing is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes

from sgi2v.cli.common import computing, opened, parse, progress_bar
from sgi2v.errors import FieldError
from sgi2v.opening import ModelChoice

if TYPE_CHECKING:
    from sgi2v.backbones.base import Outline
    from sgi2v.cli.bar import Bar
    from sgi2v.evaluation.correspondence import Found, ProbeProgress
    from sgi2v.planning import Sampling
    from sgi2v.scene import Scene


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Find out which layers of a model know where a thing is.

    Clips are made without control, things in them followed by a tracker, latents noised, and every layer asked where
    the thing has gone: the place at which SG-I2V's loss of that layer alone is least. Only frames count in which the
    thing has moved by a latent cell or more.
    """

    scenes: Path | None = None
    """A folder of scenes whose boxes are followed. Default: the packaged ones and rendered ones."""
    rendered: int = 4
    """Number of rendered scenes beside the packaged ones."""
    seeds: tuple[int, ...] = (817,)
    """Seeds of the noise; a clip is made of every scene with each."""
    noise_levels: tuple[float, ...] = ()
    """Noise levels s = noise / (signal + noise), 0 to 1, at which layers are asked; the model's own nearest steps are
    taken. Default: up to four of the steps at which it recommends that SG-I2V optimise."""
    blocks: tuple[str, ...] = ()
    """Blocks to read, each with all inside it, as in up_blocks.2; default: all."""
    source: str = "first-frame"
    """Source of the layers that are recommended: first-frame, self, output, match, …"""
    num_layers: int = 2
    """Number of layers that are recommended: those of that source nearest to the thing, on the mean over the levels."""
    write: bool = False
    """Keep them as this model's recommendation for sg-i2v, on this machine: in the configuration folder, under the
    hash of the weights. Then sgi2v takes them unless something else is typed."""
    num_steps: int | None = None
    """Denoising steps; default: what the model recommends."""
    width: int | None = None
    """Width of the clips in pixels; default: what the model recommends."""
    height: int | None = None
    """Height of the clips in pixels; default: what the model recommends."""
    num_frames: int | None = None
    """Frames of a clip; default: what the model recommends."""
    tracker: Literal["template", "points", "flow"] = "template"
    """Tracker that follows the things."""
    model: OmitArgPrefixes[ModelChoice]
    quiet: bool = False
    """Show no progress."""


def probe(arguments: Sequence[str]) -> None:
    """Find out which layers of a model know where a thing is."""
    options = parse(ProbeOptions, "probe", arguments, ProbeOptions(model=ModelChoice()))
    from sgi2v.advice import advice_folder, save_advice
    from sgi2v.controllers import SGI2V, recommended
    from sgi2v.evaluation.correspondence import guided_levels, nearest_levels, probe
    from sgi2v.evaluation.trackers import load_tracker
    from sgi2v.planning import Sampling
    from sgi2v.writing import check_place

    outline = options.model.outline()
    settings = outline.settings
    size = {name: getattr(options, name) or getattr(settings, name) for name in ("width", "height", "num_frames")}
    sampling = Sampling(num_steps=options.num_steps or settings.num_steps, **size)
    scenes = _scenes(options, outline, sampling)
    layers = _layers(options, outline)
    guided = recommended("sg-i2v", settings.recommended)
    assert isinstance(guided, SGI2V) and sampling.num_steps is not None
    levels = outline.levels(sampling.num_steps, outline.grid(**size))
    asked = nearest_levels(options.noise_levels, levels) or guided_levels(guided, levels)
    if options.write:
        check_place(advice_folder() / "any.json")
    with computing(), progress_bar(quiet=options.quiet) as bar:
        backbone = opened(options.model, outline, sampling, quiet=options.quiet)
        found = probe(
            scenes,
            backbone=backbone,
            layers=layers,
            levels=asked,
            tracker=load_tracker(options.tracker),
            sampling=sampling,
            seeds=options.seeds,
            heatmap_std=guided.heatmap_std,
            progress=lambda progress: _show(bar, progress),
        )
    for line in _table(found):
        print(line)
    best = found.best(options.source, options.num_layers)
    print(f"nearest of source {options.source}: {' '.join(best)}")
    if options.write:
        from sgi2v.backbones.base import MATCHES

        values: dict[str, object] = {"layers": list(best)}
        # Said either way, so that the layers fit it whatever the model's folder recommends.
        values["loss"] = "matching" if options.source in MATCHES else "alignment"
        said = f"sgi2v probe on {date.today().isoformat()} ({found.num_clips} clips)"
        print(save_advice(backbone.outline, {"sg-i2v": values}, said))


def _scenes(options: ProbeOptions, outline: "Outline", sampling: "Sampling") -> "list[Scene]":
    """The scenes, each of which the model can make a clip of; FieldError naming what is wrong otherwise."""
    from sgi2v.controllers import Controller
    from sgi2v.demo import shipped_scenes
    from sgi2v.evaluation.datasets import SceneFolder
    from sgi2v.evaluation.held_out import HeldOutWorld
    from sgi2v.pipeline import plan
    from sgi2v.scene_io import load_scene

    assert sampling.width and sampling.height and sampling.num_frames
    if options.scenes is not None:
        folder = SceneFolder(folder=options.scenes, num_frames=sampling.num_frames)
        scenes = [folder[k].scene for k in range(len(folder))]
    else:
        scenes = [load_scene(path) for path in shipped_scenes()]
        if options.rendered:
            # Set 1: those of set 0 are there to be measured on, once everything is chosen.
            world = HeldOutWorld(
                scene_set=1,
                limit=options.rendered,
                width=sampling.width,
                height=sampling.height,
                num_frames=sampling.num_frames,
            )
            scenes += [world[k].scene for k in range(len(world))]
    scenes = [scene for scene in scenes if scene.motions]
    if not scenes:
        raise FieldError("scenes", "no scene has a box to follow", "give others with --scenes")
    for scene in scenes:
        plan(scene, outline, controller=Controller(), sampling=sampling)
    return scenes


def _layers(options: ProbeOptions, outline: "Outline") -> tuple[str, ...]:
    """Features to read; FieldError for a block or a source that the model does not list."""
    listed = outline.layers()
    for block in options.blocks:
        if not any(_inside(name, block) for name in listed):
            raise FieldError("blocks", f"{outline.name} has no block {block!r}", f"known are {', '.join(listed)}")
    chosen = {
        name: s for name, s in listed.items() if not options.blocks or any(_inside(name, b) for b in options.blocks)
    }
    if not any(options.source in sources for sources in chosen.values()):
        known = dict.fromkeys(source for sources in chosen.values() for source in sources)
        raise FieldError("source", f"no block read has {options.source!r}", f"known are {', '.join(known)}")
    if options.num_layers < 1:
        raise FieldError("num_layers", f"must be at least 1, got {options.num_layers}")
    return tuple(f"{name}:{source}" for name, sources in chosen.items() for source in sources)


def _inside(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


def _show(bar: "Bar", progress: "ProbeProgress") -> None:
    bar.title = f"clip {progress.clip}/{progress.num_clips}, "
    bar(progress.inner)


def _table(found: "Found") -> Iterator[str]:
    """A line for each layer: mean distance in pixels and share within a cell at every level, and the mean of both."""
    wide = max(map(len, found.distances)) + 2
    heads = [f"s {level.noise_level:.3f}" for level in found.levels]
    cells = found.whole_cells.shape[0]
    yield (
        f"{found.num_clips} clips, {cells} places of things that moved by a cell ({found.cell} px) or more: mean "
        f"distance of the least loss in pixels, share within a cell"
    )
    yield "layer".ljust(wide) + "".join(head.rjust(14) for head in (*heads, "mean"))

    def line(name: str, means: Sequence[float], shares: Sequence[float]) -> str:
        pairs = [*zip(means, shares, strict=True), (sum(means) / len(means), sum(shares) / len(shares))]
        return name.ljust(wide) + "".join(f"{mean:8.1f} {share:5.0%}" for mean, share in pairs)

    for layer in found.distances:
        yield line(layer, found.mean(layer).tolist(), found.near(layer).tolist())
    for name, values in (("a box that stays", found.stays), ("moves by whole cells", found.whole_cells)):
        count = len(found.levels)
        yield line(name, [float(values.mean())] * count, [float((values <= found.cell).double().mean())] * count)
