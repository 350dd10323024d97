"""The fields of the autoencoder's training."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sgi2v.errors import FieldError
from sgi2v.training.stages import TrainingType

_OF_DECODER: Final = (
    "num_steps", "num_clip_steps", "num_clip_frames", "joint", "keep_latents", "latent_noise"
)  # fmt: skip
_FREE: Final = (
    "output", "initial", "lr", "num_warmup", "checkpoint_every", "log_every", "measure_every", "minutes", "device",
    "dtype",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """All that decides the autoencoder's training."""

    output: Path
    """Folder for checkpoints."""
    num_encoder_steps: int = 1500
    """Steps that train the encoder against a linear decoder of 3x3 latent cells."""
    num_steps: int = 4000
    """Steps that train the decoder on the frozen encoder."""
    num_clip_steps: int = 0
    """Those of these, at the end, that train on short clips, so that the temporal layers of the decoder learn."""
    num_clip_frames: int = 4
    """Frames of these clips."""
    joint: bool = False
    """Train encoder and decoder together, but for the clip steps; num_encoder_steps counts for nothing then."""
    batch_size: int = 8
    """Pictures a step (clip steps: frames a step)."""
    size: int = 64
    """Height and width of training pictures in pixels."""
    lifelike: float = 0.0
    """Share of steps whose frames of the world are lifelike: photographs, cut-outs, composed things."""
    channels: tuple[int, int, int, int] = (64, 64, 96, 128)
    """Channels of the four levels, multiples of 32."""
    layers_per_block: int = 1
    """Residual layers a level."""
    latent_channels: int = 8
    """Channels of the latents."""
    lr: float = 4e-4
    """Highest learning rate of Adam, reached after `num_warmup` steps, falling to a twentieth as a cosine."""
    num_warmup: int = 100
    """Steps of rising learning rate."""
    kl: float = 1e-4
    """Weight of the Kullback-Leibler term of a latent cell, which keeps latents near unit scale."""
    gradient_loss: float = 0.5
    """Weight of the difference of picture gradients, which keeps edges sharp."""
    keep_latents: float = 0.0
    """Joint from `initial` only: weight of the mean squared distance of the latents from those of `initial`, in parts
    of their own deviation, so that a denoiser that was trained on these still serves. 0: they may change, and their
    scale is measured anew."""
    latent_noise: float = 0.0
    """Largest deviation of the noise on the latents that the decoder learns from, in parts of their own deviation,
    drawn uniformly for each picture or clip: a denoiser's latents are not perfect either. 0: none."""
    initial: Path | None = None
    """A folder of an autoencoder to start from; none starts from random weights."""
    ema: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is exported."""
    seed: int = 0
    """Seed of weights and data."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log."""
    measure_every: int = 1000
    """Steps between measurements of the averaged weights on held-out pictures; 0: none."""
    minutes: float = 0.0
    """Minutes after which to stop, everything saved: the same command goes on. 0: not before the last step."""
    device: str = "cpu"
    """Device that trains: cpu, cuda, cuda:1 …"""
    dtype: TrainingType = "auto"
    """Type the network computes in; the optimiser keeps a float32 copy. auto: bfloat16, but float32 on a processor
    that is not faster at bfloat16; a run goes on in the type it began with."""

    def __post_init__(self) -> None:
        if self.num_clip_steps > self.num_steps:
            raise FieldError("num_clip_steps", f"{self.num_clip_steps} is more than num_steps, {self.num_steps}")
        if any(channels % 32 for channels in self.channels):
            raise FieldError("channels", f"must be multiples of 32, not {self.channels}")
        if self.keep_latents < 0 or (self.keep_latents and not (self.joint and self.initial)):
            raise FieldError("keep_latents", f"{self.keep_latents:g} wants joint and initial, and must not be below 0")
        if self.latent_noise < 0:
            raise FieldError("latent_noise", f"must not be below 0, not {self.latent_noise}")
        if self.size % 8 or self.size < 32:
            raise FieldError("size", f"must be a multiple of 8 and at least 32, not {self.size}")

    @property
    def encoder_first(self) -> int:
        """Steps that train the encoder alone."""
        return 0 if self.joint or self.initial is not None else self.num_encoder_steps

    def decided(self, *, decoder: bool) -> dict[str, object]:
        """The fields that decide the weights of a part: folders and how a run is watched do not.

        But for the rate, which may be changed where a loss went astray.
        """
        fields = asdict(self)
        for name in _FREE if decoder else (*_FREE, *_OF_DECODER):
            del fields[name]
        return fields
