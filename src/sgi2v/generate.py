"""Scene in, video out: what the command line, the studio, the benchmark and batches all call."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sgi2v.backbones import Backbone, load_backbone
from sgi2v.backbones.base import Outline, settings_with
from sgi2v.controllers import Controller, controller_from_dict, recommended
from sgi2v.grid import Grid, Tracks, tracks_of
from sgi2v.run import Run, trusted_source
from sgi2v.sampling import sample
from sgi2v.scene import Scene
from sgi2v.scene_io import scene_from_dict
from sgi2v.step import Cancelled, Reporter, Step
from sgi2v.video import Video

# A guided iteration (forward and backward, ending early) against a plain step (two forward passes): only the ratio
# matters, and only to the time left.
_ITERATION_COST = 1.2
_PREVIEWS = 6  # at most, in one run: of the bundled model a decoded frame costs a quarter of a plain step


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a video is drawn, whatever steers it. None means what the backbone recommends."""

    seed: int = 817
    """Seed of the one random generator; the same seed gives the same video."""
    num_steps: int | None = None
    """Denoising steps."""
    width: int | None = None
    """Width of the video in pixels, a multiple of 8."""
    height: int | None = None
    """Height of the video in pixels, a multiple of 8."""
    num_frames: int | None = None
    """Frames of the video."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: must lie in 0..2^63-1, got {self.seed}")
        if self.num_steps is not None and not 1 <= self.num_steps <= 1000:
            raise ValueError(f"num_steps: must lie in 1..1000, got {self.num_steps}")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    phase: Literal["encode", "sample", "decode"]
    step: int = 0
    """Denoising steps begun."""
    num_steps: int = 0
    iteration: int = 0
    """Guided iterations of this step begun; 0 in a plain step."""
    num_iterations: int = 0
    loss: float | None = None
    """Alignment loss of the last guided step that is over."""
    fraction: float = 0.0
    """Share of the sampling that is done, 0 to 1."""
    seconds_left: float | None = None
    """Estimate for the sampling; None until there is something to go by."""


@dataclass
class _Progress(Reporter):
    """Turns what the loop reports into Progress; reads losses when a step is over, so that no iteration waits."""

    progress: Callable[[Progress], None]
    cancelled: Callable[[], bool]
    preview: Callable[[Tensor], None] | None = None
    """Told the estimate of the middle latent frame, at some of the steps."""
    num_iterations: Sequence[int] = ()
    begun: float = field(default_factory=time.perf_counter)
    first: int | None = None
    """Index of the run's first step: a controller may leave out those before it."""
    pending: Tensor | None = None
    loss: float | None = None

    def planned(self, num_iterations: Sequence[int]) -> None:
        self.num_iterations = num_iterations
        self.begun = time.perf_counter()

    def _tell(self, step: Step, iteration: int, num_iterations: int) -> None:
        def cost(steps: int) -> float:
            left_out = self.first or 0
            return steps - left_out + _ITERATION_COST * sum(self.num_iterations[left_out:steps])

        done = cost(step.index) + _ITERATION_COST * iteration
        total = cost(step.count)
        elapsed = time.perf_counter() - self.begun
        self.progress(
            Progress(
                phase="sample",
                step=step.index + 1,
                num_steps=step.count,
                iteration=iteration,
                num_iterations=num_iterations,
                loss=self.loss,
                fraction=done / total,
                seconds_left=elapsed / done * (total - done) if done > 0 else None,
            )
        )

    def step(self, step: Step) -> None:
        self.check_cancelled()
        self.first = step.index if self.first is None else self.first
        if self.pending is not None:
            self.loss, self.pending = float(self.pending), None
        self._tell(step, 0, self.num_iterations[step.index])

    def iteration(self, step: Step, index: int, count: int, loss: Float[Tensor, ""]) -> None:
        self.pending = loss
        self._tell(step, index + 1, count)

    def estimate(self, step: Step, x0: Float[Tensor, "n c y x"]) -> None:
        if self.preview is not None and step.index % -(-step.count // _PREVIEWS) == 0:
            self.preview(x0[len(x0) // 2])

    def check_cancelled(self) -> None:
        if self.cancelled():
            raise Cancelled("cancelled before the video was finished; nothing was written")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that has been found possible: nothing left to a default, nothing computed yet."""

    sampling: Sampling
    controller: Controller
    grid: Grid
    tracks: Tracks


def plan(
    scene: Scene, model: Outline, *, controller: Controller | None = None, sampling: Sampling | None = None
) -> Plan:
    """What `generate` would do with these arguments, from a backbone or from its outline alone.

    Raises ValueError for a size the model cannot make, a first box outside the picture or a guided range without a
    step.
    """
    sampling = sampling or Sampling()
    unset = {f.name for f in dataclasses.fields(sampling) if getattr(sampling, f.name) is None}
    sampling = dataclasses.replace(sampling, **{name: getattr(model.settings, name) for name in unset})
    width, height, num_frames, num_steps = (
        sampling.width,
        sampling.height,
        sampling.num_frames,
        sampling.num_steps,
    )
    assert width is not None and height is not None and num_frames is not None and num_steps is not None
    controller = controller or recommended("sg-i2v", model.settings.recommended)
    grid = model.grid(width, height, num_frames)
    tracks = tracks_of(scene, grid)
    tracks.check_first_boxes()
    controller.planned_iterations(model.levels(num_steps))
    return Plan(sampling=sampling, controller=controller, grid=grid, tracks=tracks)


def generate(
    scene: Scene,
    *,
    backbone: Backbone | None = None,
    controller: Controller | None = None,
    sampling: Sampling | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    preview: Callable[[Float[Tensor, "3 h w"]], None] | None = None,
) -> Video:
    """A video of the scene's image in which its motions are followed.

    ``backbone`` defaults to the bundled model, ``controller`` to SG-I2V with what the backbone recommends.
    ``progress`` is called at every step and guided iteration; ``cancelled`` is asked as often, and the run raises
    :class:`Cancelled` when it answers True. ``preview`` is shown what the middle frame looks like so far, in 0..1, at
    up to six of the steps, decoded by itself; it changes nothing. The video carries its :class:`Run`.

    Raises ValueError, before any compute, for a size the model cannot make, a first box outside the picture or a
    guided range without a step; MemoryError, saying what would lower it, when the device is too small.
    """
    backbone = backbone or load_backbone()
    planned = plan(scene, backbone, controller=controller, sampling=sampling)
    sampling, controller, grid, tracks = planned.sampling, planned.controller, planned.grid, planned.tracks
    assert sampling.num_steps is not None
    tell = progress or (lambda _: None)
    record = {**dataclasses.asdict(sampling), "dtype": str(backbone.dtype).removeprefix("torch.")}
    run = Run.of(scene, backbone, controller, record)

    def show(latent: Tensor) -> None:
        assert preview is not None
        preview(backbone.decode(latent[None])[0])

    reporter = _Progress(
        progress=tell, cancelled=cancelled or (lambda: False), preview=None if preview is None else show
    )
    # One generator, the image's noise first and the latents second: then one seed gives what diffusers gives.
    generator = torch.Generator().manual_seed(sampling.seed)
    try:
        tell(Progress(phase="encode"))
        condition = backbone.encode(tracks.image, scene.prompt, grid, generator)
        noise = torch.randn(grid.latent_shape, generator=generator, dtype=backbone.dtype)
        latents = sample(
            backbone,
            controller,
            condition,
            tracks,
            grid,
            noise=noise.float().to(backbone.device),
            num_steps=sampling.num_steps,
            reporter=reporter,
        )
        tell(Progress(phase="decode", fraction=1.0))
        frames = backbone.decode(latents).cpu()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise MemoryError(_memory_advice(backbone, sampling)) from error
        raise
    return Video(frames=frames, fps=float(backbone.settings.fps), run=run.to_dict())


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
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Video:
    """The run's video, made again from its record alone.

    Without a ``backbone`` the recorded one is loaded, if the record may name it (:func:`trusted_source`). A given one
    has its own settings again afterwards. Raises ValueError when the record is damaged or the weights are not those of
    the record.
    """
    values = dict(run.sampling)
    dtype = values.pop("dtype", None)
    known = {f.name for f in dataclasses.fields(Sampling)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"run.sampling: unknown field {unknown[0]!r}")
    sampling = Sampling(**values)
    scene = scene_from_dict(dict(run.scene), base_dir=None)
    controller = controller_from_dict(run.controller)
    settings = run.backbone.get("settings")
    if not isinstance(settings, Mapping):
        raise ValueError("run.backbone.settings: missing; the record is damaged")
    backbone = backbone or load_backbone(trusted_source(run), dtype=dtype)
    if backbone.weights_sha256 != run.backbone.get("weights_sha256"):
        raise ValueError(
            f"backbone: the weights of {backbone.name!r} (sha256 {backbone.weights_sha256[:12]}…) are not those the "
            f"video was made with ({str(run.backbone.get('weights_sha256'))[:12]}…); give that model with --backbone"
        )
    before = backbone.settings
    backbone.settings = settings_with(before, settings, "run.backbone.settings")
    try:
        return generate(
            scene,
            backbone=backbone,
            controller=controller,
            sampling=sampling,
            progress=progress,
            cancelled=cancelled,
        )
    finally:
        backbone.settings = before
