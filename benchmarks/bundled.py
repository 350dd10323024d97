"""The bundled model on a CPU: what makes a guided step faster than the method written literally, and a whole clip."""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from diffusers.models.attention_processor import AttnProcessor2_0

from benchmarks.phases import Generation, recommended_sg_i2v
from benchmarks.timing import median_seconds, time_phases
from sgi2v.alignment import AlignmentPlan, alignment_loss
from sgi2v.backbones.folder import bundled_folder
from sgi2v.backbones.svd.model import SVD
from sgi2v.backbones.swapping import swapped
from sgi2v.controllers import SGI2V
from sgi2v.demo import shipped_scene
from sgi2v.device import device_name
from sgi2v.grid import tracks_of
from sgi2v.opening import DType, ModelChoice
from sgi2v.scene_io import load_scene
from sgi2v.spectrum import merge_frequencies
from sgi2v.step import Reporter, Step
from sgi2v.taps import Taps

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from reference import sg_i2v as twin
from reference import svd as plain


@dataclass(frozen=True, kw_only=True)
class Options:
    """Medians, on as many threads as torch takes (OMP_NUM_THREADS)."""

    what: Literal["causes", "clip"] = "causes"
    """causes: one guided step of the literal twin, then with one part after the other exchanged for the package's.
    clip: a whole guided clip with the model's recipe, by its phases and at once."""
    scene: str = "shapes"
    """One of the scenes in the package."""
    recipe: str | None = None
    """One of the model's recipes; its own way unless named."""
    dtype: DType | None = None
    """Number format of the clip; what suits the machine unless named. Causes are measured in float32."""
    iterations: int = 2
    """Iterations of the guided step whose causes are measured."""
    repeats: int = 5
    """Repetitions, after one that does not count."""


def generation_of(options: Options, dtype: DType | None, iterations: int | None = None) -> Generation:
    """The scene under the model's recipe, with another number of iterations where one is given."""
    choice = ModelChoice(recipe=options.recipe, device="cpu", dtype=dtype)
    backbone = choice.load(choice.outline())
    assert isinstance(backbone, SVD)
    settings = backbone.settings
    controller = recommended_sg_i2v(settings)
    grid = backbone.grid(settings.width, settings.height, settings.num_frames)
    return Generation(
        backbone=backbone,
        controller=replace(controller, iterations=iterations or controller.iterations),
        grid=grid,
        tracks=tracks_of(load_scene(shipped_scene(options.scene)), grid),
        num_steps=settings.num_steps,
    )


class EndsEarly:
    """The twin's network, ended where the last layer that is read has spoken."""

    def __init__(self, unet: Any, layers: tuple[str, ...]) -> None:
        self._unet = unet
        self._names = [f"{layer}.transformer_blocks.0.attn1" for layer in layers]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unet, name)

    def __call__(self, *inputs: Any, **named: Any) -> None:
        with Taps(self._unet, self._names):
            self._unet(*inputs, **named)


def settings_of(generation: Generation, controller: SGI2V) -> plain.Settings:
    """The twin's settings for the same step."""
    settings, grid = generation.backbone.settings, generation.grid
    guided = controller.guided
    assert guided.unit == "sigma", "the twin knows no other unit"
    return plain.Settings(
        width=grid.width,
        height=grid.height,
        num_frames=grid.num_frames,
        num_steps=generation.num_steps,
        sigmas=(guided.low, guided.high),
        iterations=controller.iterations,
        lr=controller.lr,
        weight_decay=controller.weight_decay,
        layers=tuple(layer.removesuffix(":first-frame") for layer in controller.layers),
        gamma=controller.cutoff,
        heatmap_std=controller.heatmap_std,
        fps=settings.fps,
        motion_bucket=settings.motion_bucket_id,
        noise_augmentation=settings.noise_aug_strength,
        guidance=(settings.min_guidance_scale, settings.max_guidance_scale),
        decode_chunk=settings.decode_chunk_size,
    )


def rungs(generation: Generation) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Guided steps with their names, from the twin's own to the package's, one part exchanged after the other."""
    controller, backbone, grid = generation.controller, generation.backbone, generation.grid
    assert isinstance(controller, SGI2V)
    settings = settings_of(generation, controller)
    models = plain.load_models(bundled_folder())
    for network in (models.unet, models.vae, models.image_encoder):
        network.float()  # the files hold 16 bit
    condition, _ = plain.start(models, generation.tracks.image, settings)
    boxes = generation.tracks.boxes(range(grid.num_frames))
    index = generation.index
    level = generation.levels[index]
    timestep = models.scheduler.timesteps[index]
    models.scheduler.set_timesteps(settings.num_steps)
    x = generation.x[None]
    early = replace(models, unet=EndsEarly(models.unet, settings.layers))
    state = generation.state
    plan: AlignmentPlan = state.plan
    parts: dict[str, Callable[..., Any]] = {}

    def step(networks: plain.Models) -> Callable[[], Any]:
        now = dict(parts)

        def run() -> Any:
            with swapped((twin, name, part) for name, part in now.items()):
                models.scheduler._step_index = None
                return twin.guided_step(networks, x, timestep, condition, boxes, settings)[0][0]

        return run

    yield "the literal twin, float32", step(models)
    yield "ends its pass at the last layer that is read", step(early)
    parts["alignment_loss"] = lambda features, _boxes, _std: alignment_loss([features], plan)
    yield "a vectorised loss instead of loops over cells", step(early)
    parts["upsampled"] = lambda native, _height, _width: native
    parts["alignment_loss"] = lambda native, _boxes, _std: alignment_loss(native, plan)
    yield "features sampled where boxes are, not upsampled whole", step(early)
    denoiser: Any = backbone.denoiser
    lean = dict(denoiser.attn_processors)

    def taps(processors: Any = None) -> Callable[..., list[torch.Tensor]]:
        def features(_models: Any, z: torch.Tensor, *_rest: Any) -> list[torch.Tensor]:
            denoiser.set_attn_processor(processors or dict(lean))
            found = backbone.features(z[0], level, generation.condition, controller.layers)
            denoiser.set_attn_processor(dict(lean))
            return list(found.values())

        return features

    parts["native_features"] = taps(AttnProcessor2_0())
    yield "queries, keys and values tapped, first-frame attention in one call", step(early)
    parts["native_features"] = taps()
    yield "no queries to the one image token", step(early)
    parts["merge"] = lambda z, before, _gamma: merge_frequencies(z, before, state.low_pass)
    yield "one transform of all frames in the merge", step(early)

    @torch.no_grad()
    def ours() -> Any:
        now = Step(
            index=index,
            count=settings.num_steps,
            level=level,
            next_level=generation.levels[index + 1],
            reporter=Reporter(),
        )
        return controller.steer(x[0], now, state)

    yield "the package, float32", ours


def causes(options: Options) -> None:
    """Measure one step made faster part by part; the latents stay the same."""
    generation, half = (generation_of(options, dtype, options.iterations) for dtype in ("float32", "bfloat16"))
    generation.prepare()
    half.prepare()
    machine(generation.backbone)
    before = generation.x
    runs = dict(rungs(generation))
    first = None
    for name, run in runs.items():  # which also warms up
        after = run()
        first = after if first is None else first
        off = float((after - first).abs().max() / (first - before).abs().max())
        print(json.dumps({"step": name, "off": off}), flush=True)
        assert off < 0.05, f"{name}: latents {off:.1%} of their way off the twin's"
    runs["the package, bfloat16"] = lambda: half.guided(lambda _: None)
    runs["the package, bfloat16"]()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):  # in turn, so that whatever else the machine does meets all alike
        for name, run in runs.items():
            times[name].append(median_seconds(run, repeats=1, warm_up=0))
            print(json.dumps({"step": name, "seconds": times[name][-1]}), flush=True)
    seconds = [statistics.median(values) for values in times.values()]
    # Whatever else the machine does can only add to a time, so the fastest go says most about small differences.
    fastest = [min(values) for values in times.values()]
    print(f"\n{options.iterations} iterations, scene {options.scene}, medians and fastest of {options.repeats}\n")
    print("| a guided step | median, s | fastest, s | over the line above | over the twin with the same exit |")
    print("|---|---|---|---|---|")
    for k, name in enumerate(times):
        gains = [f"{fastest[k - 1] / fastest[k]:.2f}", f"{fastest[1] / fastest[k]:.2f}"] if k else ["", ""]
        print(f"| {name} | {seconds[k]:.3f} | {fastest[k]:.3f} | {' | '.join(gains)} |")


def machine(backbone: SVD) -> None:
    print(json.dumps({"device": device_name(backbone.device), "torch": torch.__version__}), flush=True)


def clip(options: Options) -> None:
    """Measure a whole guided clip, and the phases it is made of."""
    generation = generation_of(options, options.dtype)
    backbone = generation.backbone
    generation.prepare()
    machine(backbone)
    whole = time_phases(generation.whole, backbone.device, repeats=options.repeats, warm_up=0)["whole run"]
    lines = ["| phase | times | seconds |", "|---|---|---|"]
    total = 0.0
    for part in generation.parts:
        for phase, timing in time_phases(part, backbone.device, repeats=options.repeats, warm_up=1).items():
            seconds = timing.seconds / generation.per_unit(phase)
            total += seconds * generation.times[phase]
            print(json.dumps({"phase": phase, "seconds": seconds}), flush=True)
            lines.append(f"| {phase} | {generation.times[phase]} | {seconds:.4f} |")
    lines.append(f"| sum | | {total:.2f} |")
    lines.append(f"| whole clip | 1 | {whole.seconds:.2f} |")
    print(
        f"\n{str(backbone.dtype).removeprefix('torch.')}, scene {options.scene}, medians of {options.repeats}, "
        f"whole clips within {whole.spread:.2f} s of each other\n"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    {"causes": causes, "clip": clip}[chosen.what](chosen)
