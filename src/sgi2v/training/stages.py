"""What decides the denoiser's training: its stages and its fields."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with clips of one shape."""

    num_steps: int
    """Steps of the optimiser."""
    num_frames: int
    """Frames of a clip; 1 trains the spatial layers alone on single later frames."""
    batch_size: int
    """Clips a step."""
    width: int = 128
    """Width of frames in pixels, a multiple of 64."""
    height: int = 64
    """Height of frames in pixels, a multiple of 64."""
    num_things: int = 1
    """Most things in a scene: each clip of a step has the same number, 1 to this, by the step's number."""
    radius: tuple[float, float] = (12.0, 20.0)
    """Smallest and largest half size of a thing in pixels."""
    rich: float = 0.0
    """Share of steps that show the rich world."""
    log_sigma: tuple[float, float] = (0.8, 1.5)
    """Mean and deviation of the natural logarithm of the noise level."""
    lr: float = 5e-4
    """Learning rate at the stage's start, after `num_warmup` steps."""
    final_lr: float = 5e-4
    """Learning rate at the stage's end; between, it changes geometrically."""
    num_warmup: int = 50
    """Steps of linearly rising learning rate at the stage's start."""

    def __post_init__(self) -> None:
        if self.width % 64 or self.height % 64:
            raise ValueError(f"width and height must be multiples of 64, not {self.width}x{self.height}")
        if self.num_frames < 1 or self.num_steps < 0 or self.batch_size < 1:
            raise ValueError(f"a stage needs at least one frame and one clip a step: {self}")

    def rate(self, step: int) -> float:
        """The learning rate of a step of this stage."""
        lr: float = self.lr * (self.final_lr / self.lr) ** (step / max(1, self.num_steps))
        return lr * min(1.0, (step + 1) / max(1, self.num_warmup))


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """All that decides the denoiser's training."""

    output: Path
    """Folder for checkpoints."""
    autoencoder: Path
    """Folder of the trained autoencoder, which is frozen here."""
    stages: tuple[Stage, ...]
    """What is trained on, in turn: pictures first, then clips, as SVD was trained."""
    channels: tuple[int, int, int, int] = (64, 96, 96, 64)
    """Channels of the four levels, multiples of 32."""
    embedding: int = 64
    """Length of the image embedding that cross-attention sees."""
    num_frames: int = 14
    """Frames of a clip the model is meant for; times of shorter stages run 0..1 all the same."""
    fps: int = 7
    """Frames a second that training clips are said to have."""
    image_dropout: float = 0.1
    """Chance that the concatenated picture is zero; the embedding is dropped by a draw of its own."""
    noise_aug: tuple[float, float] = (0.005, 0.3)
    """Smallest and largest strength of the noise added to the picture before encoding, drawn log-uniformly."""
    motion_jitter: float = 10.0
    """Deviation of the noise added to the motion bucket."""
    initial: Path | None = None
    """A folder in diffusers' layout to start from (its unet and image_encoder); none starts from random weights."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is exported."""
    pool_steps: int = 16
    """Steps that draw from the same rendered and encoded clips (each pair or clip is drawn a few times, with other
    noise)."""
    seed: int = 0
    """Seed of weights, data and noise."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    device: str = "cpu"
    """Where to train."""
    dtype: str = "bfloat16"
    """Type the networks compute in; the optimiser keeps a float32 copy."""

    def __post_init__(self) -> None:
        if any(channels % 32 for channels in self.channels):
            raise ValueError(f"channels must be multiples of 32, not {self.channels}")

    @property
    def num_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.num_steps for stage in self.stages)

    def stage_of(self, step: int) -> tuple[Stage, int]:
        """The stage a step belongs to, and the step's number within it."""
        for stage in self.stages:
            if step < stage.num_steps:
                return stage, step
            step -= stage.num_steps
        raise IndexError(f"training has {self.num_steps} steps")
