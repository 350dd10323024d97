"""The recipes of the bundled model: `first` at 64x64, those on from it at 320x192, and `wide`, for a GPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sgi2v.training.autoencoder_fields import AutoencoderTraining
from sgi2v.training.stages import DenoiserTraining, Stage

HERE = Path(__file__).parent
TWO_CORES: Mapping[str, Any] = MappingProxyType(
    {
        "settings": HERE.parents[1] / "src" / "sgi2v" / "assets" / "sgi2v.json",
        "sigma_max": 40.0,
        "num_frames": 14,
        "accumulation": 2,
        "checkpoint_every": 50,
        "probe_every": 0,
        "validate_every": 250,
        "shard_size": "13MB",
    }
)
"""Common fields of trainings of the package's model on two cores."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Trainings of a model's parts, one after the other."""

    encoder: AutoencoderTraining | None
    """An encoder trained by itself, first; None where the autoencoder learns as one."""
    autoencoder: AutoencoderTraining | None
    """The autoencoder, or its decoder; None where that of the denoiser's initial model stays."""
    denoiser: DenoiserTraining
    """The denoiser; with no steps that of its initial model stays."""


def first(output: Path, scale: float) -> Recipe:
    """64x64 pixels, 8 frames, in an hour and a half of two cores: what was in the package until `taught`.

    The first two stages ran as two processes (twice the batch, written out here); until step 1450 the simple world's
    things had stronger patterns, a fifth of them pictures, and colours that could be near the background's, and the
    average of the weights had decay 0.998. So this repeats the recipe, not every bit. The README tells the story.
    """
    pictures: dict[str, Any] = {"num_frames": 1}
    square: dict[str, Any] = {"width": 64, "height": 64}
    pairs: dict[str, Any] = {**pictures, **square, "num_things": 2, "log_sigma": (0.5, 1.2)}
    clips: dict[str, Any] = {**square, "num_frames": 8, "batch_size": 6, "log_sigma": (0.7, 1.3)}
    stages = (
        Stage(**pictures, num_steps=400, batch_size=48, lr=1e-3, final_lr=7e-4, num_warmup=60),
        Stage(**pairs, num_steps=200, batch_size=96, lr=1e-3, final_lr=9.5e-4, num_warmup=20),
        Stage(**pairs, num_steps=250, batch_size=64, lr=9.5e-4, final_lr=9e-4, num_warmup=0),
        Stage(**clips, num_steps=550, lr=8e-4, final_lr=7e-4, num_warmup=60),
        Stage(**clips, num_steps=1200, lr=7e-4, final_lr=5.5e-4, num_warmup=1),
        Stage(**clips, num_steps=850, lr=5.5e-4, final_lr=2e-5, num_warmup=1),
    )
    folder = output / "autoencoder"
    return Recipe(
        encoder=AutoencoderTraining(
            output=folder, num_encoder_steps=times(700, scale), lr=1e-3, num_warmup=60, ema=0.98
        ),
        autoencoder=AutoencoderTraining(
            output=folder,
            initial=folder / "linear",
            num_steps=times(1600, scale),
            lr=8e-4,
            num_warmup=60,
            ema=0.99,
            batch_size=6,
        ),
        denoiser=DenoiserTraining(
            output=output / "denoiser",
            autoencoder=folder / "linear",
            settings=HERE / "first.json",
            sigma_max=20.0,
            stages=scaled(stages, scale),
            num_frames=8,
            ema=0.995,
            shard_size="13MB",
        ),
    )


def taught(output: Path, scale: float) -> Recipe:
    """320x192 pixels, 14 frames, attention taught where things were, on two cores; from the weights of `first`.

    These are expected in OUTPUT/first, as commit b3c2b40 has them in src/sgi2v/assets. The encoder stays; the decoder
    learns to draw at the new size, from latents that are as imperfect as a denoiser's.
    """
    small: dict[str, Any] = {"width": 192, "height": 128, "radius": (10.0, 40.0), "num_things": 3, "rich": 0.25}
    clips: dict[str, Any] = {**small, "num_frames": 8, "batch_size": 2}
    stages = (
        Stage(**small, num_frames=4, batch_size=2, num_steps=600, lifelike=0.1, lr=5e-4, final_lr=4e-4),
        Stage(**clips, num_steps=1000, lifelike=0.2, lr=4e-4, final_lr=3e-4, num_warmup=20),
        Stage(**clips, num_steps=1000, lifelike=0.35, log_sigma=(0.9, 1.5), lr=3e-4, final_lr=2e-4, num_warmup=1),
        Stage(
            **{**clips, "num_things": 2, "rich": 0.15},
            num_steps=1100,
            lifelike=0.65,
            calm=True,
            log_sigma=(1.0, 1.3),
            lr=2.5e-4,
            final_lr=1.5e-4,
            num_warmup=1,
        ),
        Stage(
            width=320,
            height=192,
            radius=(14.0, 60.0),
            num_things=3,
            rich=0.25,
            lifelike=0.6,
            calm=True,
            num_frames=14,
            batch_size=1,
            num_steps=320,
            lr=1e-4,
            final_lr=1e-5,
            num_warmup=20,
        ),
    )
    initial = output / "first"
    return Recipe(
        encoder=None,
        autoencoder=AutoencoderTraining(
            output=output / "autoencoder",
            initial=initial / "vae",
            num_steps=times(1600, scale),
            num_clip_steps=times(1200, scale),
            size=128,
            batch_size=4,
            lifelike=0.35,
            latent_noise=0.3,
            lr=3e-4,
        ),
        denoiser=DenoiserTraining(
            output=output / "denoiser",
            initial=initial,
            stages=scaled(stages, scale),
            correspondence=0.05,
            seed=22,
            **TWO_CORES,
        ),
    )


def further(output: Path, scale: float) -> Recipe:
    """Goes on from the weights of `taught`, with its autoencoder: photographs of which parts slide, on two cores.

    The weights are expected in OUTPUT/taught, as commit db91af5 has them in src/sgi2v/assets. Clips of four frames come
    first: a frame costs the same in them, and twice as many pictures are seen.
    """
    small: dict[str, Any] = {
        "width": 192,
        "height": 128,
        "radius": (12.0, 44.0),
        "num_things": 2,
        "rich": 0.15,
        "lifelike": 0.75,
        "calm": True,
    }
    stages = (
        Stage(
            **small,
            num_frames=4,
            batch_size=4,
            num_steps=858,
            log_sigma=(1.1, 1.2),
            lr=4e-4,
            final_lr=3.31e-4,
            num_warmup=60,
        ),
        Stage(
            **small,
            num_frames=8,
            batch_size=2,
            num_steps=700,
            log_sigma=(0.8, 1.3),
            lr=3e-4,
            final_lr=2e-4,
            num_warmup=1,
        ),
        Stage(
            width=320,
            height=192,
            radius=(18.0, 66.0),
            num_things=2,
            rich=0.15,
            lifelike=0.7,
            calm=True,
            num_frames=14,
            batch_size=1,
            num_steps=520,
            log_sigma=(0.9, 1.4),
            lr=2e-4,
            final_lr=1e-5,
            num_warmup=20,
        ),
    )
    return onward(output, "taught", scaled(stages, scale), seed=23)


def noisier(output: Path, scale: float) -> Recipe:
    """Goes on from the weights of `further`: noise at which it is decided where a thing goes, mostly plain things.

    What `further` exports is expected in OUTPUT/further. Things that nothing guides fell to pieces there, each frame by
    itself: what the frames have to agree on is decided at noise levels of 4 to 14, which few of its clips had.
    """
    plain: dict[str, Any] = {"num_things": 2, "rich": 0.15, "lifelike": 0.4, "calm": True}
    stages = (
        Stage(
            **plain,
            width=192,
            height=128,
            radius=(12.0, 44.0),
            num_frames=8,
            batch_size=2,
            num_steps=1500,
            log_sigma=(1.8, 0.9),
            lr=3.5e-4,
            final_lr=2e-4,
        ),
        Stage(
            **plain,
            width=320,
            height=192,
            radius=(18.0, 66.0),
            num_frames=14,
            batch_size=1,
            num_steps=430,
            log_sigma=(1.6, 1.0),
            lr=2e-4,
            final_lr=1e-5,
            num_warmup=20,
        ),
    )
    return onward(output, "further", scaled(stages, scale), seed=24)


def sharper(output: Path, scale: float) -> Recipe:
    """The autoencoder of `taught` gone on with, encoder and decoder together, on two cores; the denoiser stays.

    The weights are expected in OUTPUT/taught, as commit db91af5 has them in src/sgi2v/assets. The latents are held near
    where they were, so that the denoiser, which was trained on these, still serves; the last steps, on clips, train the
    decoder alone.
    """
    return _autoencoder_alone(
        output,
        "taught",
        joint=True,
        keep_latents=1.0,
        num_steps=times(1600, scale),
        num_clip_steps=times(400, scale),
        latent_noise=0.2,
        lr=4e-4,
        num_warmup=60,
        ema=0.99,
        seed=31,
    )


def smoother(output: Path, scale: float) -> Recipe:
    """The decoder alone, on from `sharper`, from rougher latents: what a denoiser leaves unsure shall not show.

    What `sharper` exports is expected in OUTPUT/sharper.
    """
    return _autoencoder_alone(
        output,
        "sharper",
        num_steps=times(1000, scale),
        num_clip_steps=times(500, scale),
        latent_noise=0.35,
        lr=3e-4,
        num_warmup=20,
        ema=0.99,
        seed=33,
    )


def _autoencoder_alone(output: Path, after: str, **changes: Any) -> Recipe:
    """The autoencoder on two cores, on from the model in OUTPUT/`after`, of which all else stays."""
    return Recipe(
        encoder=None,
        autoencoder=AutoencoderTraining(
            output=output / "autoencoder",
            initial=output / after / "vae",
            size=128,
            batch_size=4,
            lifelike=0.35,
            measure_every=160,
            checkpoint_every=40,
            **changes,
        ),
        denoiser=DenoiserTraining(
            output=output / "denoiser",
            initial=output / after,
            stages=(Stage(width=320, height=192, num_frames=14, batch_size=1, num_steps=0),),
            **TWO_CORES,
        ),
    )


def wide(output: Path, scale: float) -> Recipe:
    """320x192 pixels, 14 frames, below 40 MB, for one GPU: not run yet.

    19.6 M parameters, 39.1 MB in float16: denoiser 14.4, autoencoder 4.9, image encoder 0.3.
    """
    small: dict[str, Any] = {"width": 192, "height": 128, "radius": (10.0, 32.0)}
    whole: dict[str, Any] = {"width": 320, "height": 192, "radius": (14.0, 48.0)}
    things: dict[str, Any] = {"num_things": 3, "rich": 0.4, "lifelike": 0.5}
    long: dict[str, Any] = {**whole, **things, "num_frames": 14, "batch_size": 16}
    stages = (
        # Pictures: a frame, given another one of its scene; the spatial layers alone.
        Stage(**small, **things, num_frames=1, batch_size=128, num_steps=3000, log_sigma=(0.5, 1.2), lr=5e-4),
        # Few frames: the layers over time begin, and attention is taught where things were. Parts of photographs that
        # slide, and nothing else, until the last stage: that was learned fastest (README.md).
        Stage(**small, **things, calm=True, num_frames=3, batch_size=64, num_steps=3000, log_sigma=(0.8, 1.4), lr=5e-4),
        # Short clips, then the model's own length and size, at the noise that decides where things go (`noisier`).
        Stage(**small, **things, calm=True, num_frames=8, batch_size=32, num_steps=4000, log_sigma=(1.6, 1.1), lr=5e-4),
        Stage(**long, calm=True, num_steps=5000, log_sigma=(1.5, 1.2), lr=4e-4, final_lr=2e-4),
        # Everything at once: a camera, turning, light, what enters and leaves.
        Stage(**long, num_steps=3000, log_sigma=(1.0, 1.4), lr=2e-4, final_lr=1e-5, num_warmup=1),
    )
    return Recipe(
        encoder=None,
        autoencoder=AutoencoderTraining(
            output=output / "autoencoder",
            joint=True,
            channels=(64, 96, 128, 128),
            latent_channels=8,
            size=192,
            batch_size=16,
            num_steps=times(16000, scale),
            num_clip_steps=times(3000, scale),
            num_clip_frames=8,
            lifelike=0.5,
            lr=4e-4,
            ema=0.999,
        ),
        denoiser=DenoiserTraining(
            output=output / "denoiser",
            autoencoder=output / "autoencoder" / "model",
            settings=HERE / "wide.json",
            stages=scaled(stages, scale),
            channels=(64, 96, 96, 96),
            num_frames=14,
            correspondence=0.1,
            ema=0.999,
            pool_steps=8,
            watch_every=2000,
            watch_scenes=4,
            shard_size="13MB",
        ),
    )


RECIPES: Mapping[str, Callable[[Path, float], Recipe]] = MappingProxyType(
    {
        "first": first,
        "taught": taught,
        "further": further,
        "noisier": noisier,
        "sharper": sharper,
        "smoother": smoother,
        "wide": wide,
    }
)


def onward(output: Path, after: str, stages: tuple[Stage, ...], *, seed: int) -> Recipe:
    """The denoiser alone, on two cores, on from the model in OUTPUT/`after`."""
    return Recipe(
        encoder=None,
        autoencoder=None,
        denoiser=DenoiserTraining(
            output=output / "denoiser",
            initial=output / after,
            stages=stages,
            correspondence=0.1,
            seed=seed,
            **TWO_CORES,
        ),
    )


def times(num_steps: int, scale: float) -> int:
    """A number of steps, scaled; at least one."""
    return max(1, round(num_steps * scale))


def scaled(stages: tuple[Stage, ...], scale: float) -> tuple[Stage, ...]:
    """The stages with their numbers of steps scaled."""
    return tuple(replace(stage, num_steps=times(stage.num_steps, scale)) for stage in stages)
