"""Scene in, video out: what the command line, the studio, the benchmark and batches all call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float

from sgi2v.backbones.base import Backbone, Outline, Text, settings_with
from sgi2v.backbones.registry import load_backbone
from sgi2v.controllers import Controller, Setup, controller_from_dict, controller_name, default_controller
from sgi2v.device import device_name
from sgi2v.errors import FieldError
from sgi2v.fitting import fitted
from sgi2v.grid import Grid, Tracks, shown_part, tracks_of
from sgi2v.latents import Given
from sgi2v.lazy import torch
from sgi2v.light import part_seen, tracks_seen
from sgi2v.migrations import generator_of_1
from sgi2v.pace import keep_pace, pace_of
from sgi2v.planning import Sampling, Schedule
from sgi2v.progress import Progress, RunProgress
from sgi2v.remarks import cut, less_guided, squashed, too_fast
from sgi2v.run import Run, public_name, trusted_source
from sgi2v.sampling import sample
from sgi2v.scene import Scene
from sgi2v.scene_io import scene_from_dict
from sgi2v.shape import shaped
from sgi2v.solvers import SOLVERS
from sgi2v.step import Level
from sgi2v.video_tag import Recording

if TYPE_CHECKING:
    from sgi2v.backbones.adapters import Adapter
    from sgi2v.video import Video

__all__ = ["Plan", "Progress", "generate", "plan", "replay"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that has been found possible: nothing left to a default, nothing computed yet."""

    scene: Scene
    """As the model takes it: of fit aspect, with the fit that it comes to (:mod:`sgi2v.shape`)."""
    sampling: Sampling
    controller: Controller
    grid: Grid
    tracks: Tracks
    levels: Sequence[Level]
    schedule: Schedule
    warnings: tuple[str, ...]
    """Remarks to the person: what of the scene is left unused, what is guided less than it might be, which box cuts
    its thing, what is too fast, how a picture is squashed."""
    unused: tuple[str, ...] = ()
    """Those of them that the record keeps: what of the scene is left unused."""
    too_fast: tuple[str, ...] = ()
    """Those of them on speed."""


def plan(
    scene: Scene,
    outline: Outline,
    *,
    controller: Controller | None = None,
    sampling: Sampling | None = None,
    tracks: Tracks | None = None,
    adapters: Sequence[Adapter] = (),
) -> Plan:
    """The run that `generate` would make of these arguments, from what is known before any weight is read.

    ``adapters`` are those that take part beside the outline's own. ``tracks`` stand for what the scene becomes at the
    model's size, as a light record keeps it.

    Raises FieldError for a size the model cannot make, a first box outside the picture, a range without a step, a
    layer the model does not have, or a scene in which there is nothing to steer by.
    """
    settings = outline.settings
    scene, sampling = shaped(scene, outline, sampling or Sampling())
    unset = {f.name for f in dataclasses.fields(sampling) if getattr(sampling, f.name) is None}
    sampling = dataclasses.replace(sampling, **{name: getattr(settings, name) for name in unset})
    width, height, num_frames, num_steps = (
        sampling.width,
        sampling.height,
        sampling.num_frames,
        sampling.num_steps,
    )
    assert width is not None and height is not None and num_frames is not None and num_steps is not None
    controller = controller or default_controller(settings)
    uses = controller.uses()
    if uses.motions and not scene.motions and not (uses.reference and scene.reference):
        raise FieldError(
            "motions",
            f"the scene has none, and {controller_name(controller)} steers by them",
            "draw one, or choose controller:none",
        )
    steered = check_steered(controller, outline, adapters)
    grid = outline.grid(width, height, num_frames)
    tracks = tracks or tracks_of(scene, grid)
    tracks.check_first_boxes()
    remarks = controller.remarks(tracks, grid)
    levels = outline.levels(num_steps, grid)
    schedule = controller.schedule(levels)
    unused = [*outline.check(scene, controller, sampling), *controller.unheeded(tracks, grid), *steered]
    if scene.reference is not None and not uses.reference:
        unused.append("reference clip")
    if not uses.masks and any(motion.mask is not None for motion in scene.motions):
        unused.append("masks")
    model = public_name(outline.name)  # a record holds the remark, and names no folder of this machine
    remark = f"not used by {controller_name(controller)} on {model}: {', '.join(unused)}"
    kept = (remark,) if unused else ()
    fast = too_fast(scene, tracks, grid) if uses.motions else ()
    cut_off = cut(scene) if uses.motions else ()
    return Plan(
        scene=scene,
        sampling=sampling,
        controller=controller,
        grid=grid,
        tracks=tracks,
        levels=levels,
        schedule=schedule,
        warnings=(*kept, *remarks, *less_guided(controller, settings, levels), *cut_off, *fast, *squashed(scene, grid)),
        unused=kept,
        too_fast=fast,
    )


def check_steered(controller: Controller, outline: Outline, adapters: Sequence[Adapter] = ()) -> tuple[str, ...]:
    """FieldError unless every kind of trained system that the method steers is there once; the others in words."""
    own = [one.kind for one in getattr(outline, "adapters", ())]
    given = [kind for one in adapters if (kind := getattr(one, "kind", ""))]
    kinds, wanted = [*own, *given], controller.uses().adapters
    for kind in wanted:
        if kinds.count(kind) != 1:
            there = f"{kinds.count(kind)} of them are there" if kind in kinds else "they are not there"
            raise FieldError(
                "adapter", f"{controller_name(controller)} steers weights of {kind}, and {there}",
                "give them with --adapter FILE, a name or a hub id, once",
            )  # fmt: skip
    return tuple(f"the weights of {kind}" for kind in dict.fromkeys(kinds) if kind not in wanted)


def generate(
    scene: Scene,
    *,
    backbone: Backbone | None = None,
    controller: Controller | None = None,
    sampling: Sampling | None = None,
    adapters: Sequence[Adapter] = (),
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    preview: Callable[[Float[torch.Tensor, "3 h w"]], None] | None = None,
    noise: torch.Tensor | None = None,
    reference_latents: torch.Tensor | None = None,
    record: Recording = "light",
) -> Video:
    """A video of the scene's image in which its motions are followed.

    ``backbone`` defaults to the bundled model, ``controller`` to the method that the backbone names for
    whoever names none (``settings.default``), with what it recommends.
    ``adapters`` take part in every pass (:mod:`sgi2v.backbones.adapters`), beside those that were loaded with the
    backbone; a trained system only where the method steers its kind. ``progress`` is called at every step and
    guided iteration; ``cancelled`` is asked as often, and the run raises :class:`Cancelled` when it answers True.
    ``preview`` is shown what the middle frame looks like so far, in 0..1, at up to six of the steps, decoded by
    itself; it changes nothing. ``noise`` stands instead of what the seed would give, ``reference_latents`` instead of
    the reference clip as the model encodes it: both latents of the video's grid, [frames, channels, rows, columns],
    float32, normalised as the network sees them. The video carries its :class:`Run`, its noise and its latents;
    ``record`` is what of the run a file of it will carry (:meth:`sgi2v.Video.recorded`).

    Raises FieldError, before any compute, for what :func:`plan` refuses; MemoryError, saying what would lower it, when
    the device is too small.
    """
    return _generate(
        scene,
        backbone=backbone or load_backbone(),
        controller=controller,
        sampling=sampling,
        adapters=adapters,
        reporter=RunProgress(progress=progress or (lambda _: None), cancelled=cancelled or (lambda: False)),
        preview=preview,
        given=Given(noise=noise, reference_latents=reference_latents),
        record=record,
    )


def _generate(
    scene: Scene,
    *,
    backbone: Backbone,
    controller: Controller | None,
    sampling: Sampling | None,
    adapters: Sequence[Adapter],
    reporter: RunProgress,
    given: Given,
    preview: Callable[[torch.Tensor], None] | None = None,
    repeated: Run | None = None,
    record: Recording = "light",
) -> Video:
    """As :func:`generate`; ``repeated`` is the run that is made again, if one is."""
    from sgi2v.backbones.adapters import identities, kind_of, taking_part
    from sgi2v.video import Video

    drawn_from_noise = repeated is not None and repeated.version == 1
    tracks = None if repeated is None else tracks_seen(scene, repeated)
    planned = plan(scene, backbone.outline, controller=controller, sampling=sampling, tracks=tracks, adapters=adapters)
    adapters = taking_part(_with_own(backbone, adapters), planned.controller.uses().adapters)
    scene, sampling, grid = planned.scene, planned.sampling, planned.grid
    given.check(planned.controller, grid)
    number = str(backbone.dtype).removeprefix("torch.")
    method = controller_name(planned.controller)
    kind = f"{backbone.weights_sha256[:16]} {device_name(backbone.device)} {number} {backbone.memory} {method}"
    pixels = grid.width * grid.height * grid.num_frames
    if (pace := pace_of(kind)) is not None:
        reporter.pace = pace * pixels
    size = grid.width, grid.height
    part = None if repeated is None else part_seen(repeated)
    part = part or shown_part(scene.image.size, size, scene.fit)
    is_cut = sampling.padding == "cut" and part != (0, 0, *size)
    values = dataclasses.asdict(sampling)
    if not is_cut:
        del values["padding"]  # a record says only that it was cut: older programs never did
    run = Run.of(
        scene,
        backbone,
        planned.controller,
        {**values, "dtype": number},
        adapters=identities(adapters),
        warnings=planned.unused,
        inputs=given.hashes,
        drawn_from_noise=drawn_from_noise,
    )
    if repeated is not None and repeated.seen is not None:
        run = dataclasses.replace(run, scene=repeated.scene, seen=repeated.seen)
    if preview is not None:
        shown = preview
        reporter.preview = lambda x0: shown(backbone.decode(x0, [len(x0) // 2])[0])
    # One generator, first the model's draws in its own order, then the method's: then one seed gives what the model's
    # own pipeline gives.
    generator = torch.Generator().manual_seed(sampling.seed)
    text = Text(prompt=scene.prompt, negative=scene.negative_prompt)
    try:
        with ExitStack() as adapted:
            for adapter in taking_part(adapters, ()):
                adapted.enter_context(backbone.adapted(adapter))
            reporter.progress(Progress(phase="encode"))
            condition = backbone.encode(planned.tracks.image, text, grid, generator)
            # Drawn in any case: later draws stay what they are.
            noise = backbone.noise(grid, generator)
            noise = noise if given.noise is None else given.noise.to(noise.device)
            setup = Setup(
                backbone=backbone,
                condition=condition,
                tracks=planned.tracks,
                grid=grid,
                levels=planned.levels,
                generator=generator_of_1(noise) if drawn_from_noise else generator,
                text=text,
                reference_latents=given.reference_latents,
                adapters={kind_of(adapter): adapter for adapter in adapters if kind_of(adapter)},
            )
            solver = SOLVERS[sampling.solver]
            latents = sample(planned.controller, setup, noise=noise, reporter=reporter, solver=solver)
            keep_pace(kind, reporter.measured() / pixels)
            reporter.progress(Progress(phase="decode", fraction=1.0))
            frames = backbone.decode(latents).cpu()
            if is_cut:
                left, top, right, bottom = part
                frames = frames[..., top:bottom, left:right].contiguous()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise MemoryError(_memory_advice(backbone, sampling)) from error
        raise
    return Video(
        frames=frames,
        fps=float(backbone.settings.fps),
        run=run.to_dict(),
        noise=noise.cpu(),
        latents=latents.cpu(),
        record=record,
    )


def _memory_advice(backbone: Backbone, sampling: Sampling) -> str:
    return (
        f"{backbone.device} has too little memory for {sampling.num_frames} frames of "
        f"{sampling.width}x{sampling.height} in {str(backbone.dtype).removeprefix('torch.')}; "
        "lower --num-frames, --width and --height, or choose --memory low or a 16-bit --dtype"
    )


def replay(
    run: Run,
    *,
    backbone: Backbone | None = None,
    adapters: Sequence[Adapter] = (),
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    noise: torch.Tensor | None = None,
    reference_latents: torch.Tensor | None = None,
    record: Recording = "light",
) -> Video:
    """The run's video, made again from its record alone.

    Without a ``backbone`` the recorded one is loaded, if the record may name it (:func:`trusted_source`). Raises
    FieldError when the record is damaged, names a method of a package that is not installed, or the weights of the
    model, the ``adapters``, or latents that were given (as to :func:`generate`) are not those of the record.
    """
    values = dict(run.sampling)
    dtype = values.pop("dtype", None)
    known = {f.name for f in dataclasses.fields(Sampling)}
    if unknown := sorted(set(values) - known):
        raise FieldError("run.sampling", f"unknown field {unknown[0]!r}")
    sampling = Sampling(**fitted(Sampling, {"padding": "keep", **values}, "run.sampling"))
    scene = scene_from_dict(dict(run.scene), base_dir=None)
    controller = controller_from_dict(run.controller)
    settings = run.backbone.get("settings")
    if not isinstance(settings, Mapping):
        raise FieldError("run.backbone.settings", "missing; the record is damaged")
    given = Given(noise=noise, reference_latents=reference_latents)
    given.check_recorded(run.inputs)
    if backbone is None:
        _check_adapters(run, controller, adapters)
    backbone = backbone or load_backbone(trusted_source(run), dtype=dtype)
    _check_adapters(run, controller, _with_own(backbone, adapters))
    if backbone.weights_sha256 != run.backbone.get("weights_sha256"):
        raise FieldError(
            "backbone",
            f"the weights of {backbone.name!r} (sha256 {backbone.weights_sha256[:12]}…) are not those the "
            f"video was made with ({str(run.backbone.get('weights_sha256'))[:12]}…)",
            "give that model with --backbone",
        )
    return _generate(
        scene,
        backbone=backbone.with_settings(settings_with(backbone.settings, settings, "run.backbone.settings")),
        controller=controller,
        sampling=sampling,
        adapters=adapters,
        reporter=RunProgress(progress=progress or (lambda _: None), cancelled=cancelled or (lambda: False)),
        given=given,
        repeated=run,
        record=record,
    )


def _with_own(backbone: Backbone, adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """The adapters that were loaded with a backbone, then others."""
    return (*getattr(backbone, "adapters", ()), *adapters)


def _check_adapters(run: Run, controller: Controller, adapters: Sequence[Adapter]) -> None:
    """FieldError unless those of some adapters that take part are the run's, as strong and in its order."""
    from sgi2v.backbones.adapters import identities, taking_part

    def decisive(found: Sequence[Mapping[str, object]]) -> list[tuple[object, object]]:
        return [(one.get("sha256"), one.get("scale", 1.0)) for one in found]

    if decisive(run.adapters) != decisive(identities(taking_part(adapters, controller.uses().adapters))):
        named = [f"{one.get('name')} (scale {one.get('scale', 1.0)})" for one in run.adapters]
        wanted = ", ".join(named) or "no adapter"
        raise FieldError("adapters", f"the video was made with {wanted}", "give these, in this order")
