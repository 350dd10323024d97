"""The stages and fields of the denoiser's training."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from sgi2v.errors import FieldError

Trained = Literal["all", "temporal", "attention"]
TrainingType = Literal["auto", "bfloat16", "float32"]

_FREE: Final = (
    "output", "initial", "autoencoder", "settings", "sigma_max", "videos", "gradient_checkpointing",
    "checkpoint_every", "log_every", "probe_every", "validate_every", "watch_every", "watch_scenes", "shard_size",
    "minutes", "device", "dtype",
)  # fmt: skip
"""Fields of a training that may change when it goes on; weights and clips that folders hold are compared themselves."""
_RATES: Final = "lr", "final_lr", "num_warmup"
"""Fields of a stage that may change while it is under way."""


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
    """Share of steps that show the rich world, of those that do not show the lifelike one."""
    lifelike: float = 0.0
    """Share of steps that show the lifelike world: photographs, cut-outs, composed things, a camera."""
    calm: bool = False
    """Let nothing happen in the lifelike world but that things slide: its camera and light stay, nothing turns,
    enters, leaves or hides thing 0."""
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
            raise FieldError("", f"width and height must be multiples of 64, not {self.width}x{self.height}")
        if self.num_frames < 1 or self.num_steps < 0 or self.batch_size < 1:
            raise FieldError("", f"a stage needs at least one frame and one clip a step: {self}")

    def rate(self, step: int) -> float:
        """The learning rate of a step of this stage."""
        lr: float = self.lr * (self.final_lr / self.lr) ** (step / max(1, self.num_steps))
        return lr * min(1.0, (step + 1) / max(1, self.num_warmup))


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """All that decides the denoiser's training."""

    output: Path
    """Folder for checkpoints, the log and the model."""
    stages: tuple[Stage, ...]
    """Stages in turn: pictures first, then clips, as SVD was trained. Stages that have not begun, and
    the rates of the one under way, may be changed when a run goes on."""
    initial: Path | None = None
    """A folder in diffusers' layout to start from, such as Stable Video Diffusion; none starts from random weights."""
    autoencoder: Path | None = None
    """Folder of the trained autoencoder, which is frozen here; that of `initial` by default."""
    settings: Path | None = None
    """The sgi2v.json of the model to be: recommended sampling and control. By default that of `initial`, or plain
    values."""
    sigma_max: float | None = None
    """Highest noise level of the model's scheduler, where sampling starts; by default that of `initial`, or 80."""
    trained: Trained = "all"
    """Layers of the denoiser that learn: all, temporal (those that mix frames), attention."""
    freeze_image_encoder: bool = False
    """Leave the image encoder as it is; it cannot be trained from nothing then."""
    gradient_checkpointing: bool = False
    """Compute activations of the denoiser again in the backward pass: a third slower, far less memory."""
    channels: tuple[int, int, int, int] = (64, 96, 96, 64)
    """Channels of the four levels, multiples of 32; without `initial`."""
    embedding: int = 64
    """Length of the image embedding that cross-attention sees; without `initial`."""
    num_frames: int = 14
    """Frames of a clip the model is meant for; times of shorter stages run 0..1 all the same."""
    fps: int = 7
    """Frames a second that training clips are said to have."""
    videos: Path | None = None
    """A folder of one's own clips (mp4, gif, or folders of frames) to train on instead of the rendered world."""
    image_dropout: float = 0.1
    """Chance that the concatenated picture is zero; the embedding is dropped by a draw of its own."""
    noise_aug: tuple[float, float] = (0.005, 0.3)
    """Smallest and largest strength of the noise added to the picture before encoding, drawn log-uniformly."""
    motion_jitter: float = 10.0
    """Deviation of the noise added to the motion bucket."""
    correspondence: float = 0.0
    """Weight of the loss that teaches spatial self-attention where each place was in the first frame; 0 is off."""
    correspondence_blocks: tuple[str, ...] = tuple(
        f"up_blocks.{level}.attentions.{number}" for level in (2, 3) for number in range(3)
    )
    """The blocks whose attention is taught."""
    correspondence_places: int = 128
    """Places of each clip and block that are taught in a step, half of them on what has moved."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is exported."""
    accumulation: int = 1
    """Micro-batches a step, each with clips of its own, whose gradients are averaged. On a CPU each is computed by a
    thread of its own, which uses two cores nearly twice as well as one does; on a GPU one after the other."""
    pool_steps: int = 16
    """Steps that draw from the same rendered and encoded clips (each pair or clip is drawn a few times, with other
    noise)."""
    seed: int = 0
    """Seed of weights, data and noise."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log; losses are read from the device then, and not before."""
    probe_every: int = 500
    """Steps between probes of whether features find the object of the first frame; 0: none."""
    validate_every: int = 0
    """Steps between readings of the averaged weights' loss on held-out clips of the stage's shape, by kind of world and
    noise level; 0: none."""
    watch_every: int = 0
    """Steps between looks at held-out clips made by the averaged weights without control and with SG-I2V: a sheet in
    `output`/samples and the distances from the paths in the log; 0: none."""
    watch_scenes: int = 2
    """Scenes looked at each time."""
    shard_size: str = "5GB"
    """Largest weight file of the exported model."""
    minutes: float = 0.0
    """Minutes after which to stop, everything saved: the same command goes on. 0: not before the last step."""
    device: str = "cpu"
    """Device that trains: cpu, cuda, cuda:1 …"""
    dtype: TrainingType = "auto"
    """Type the networks compute in; the optimiser keeps a float32 copy. auto: bfloat16, but float32 on a processor
    that is not faster at bfloat16; a run goes on in the type it began with."""

    def __post_init__(self) -> None:
        if any(channels % 32 for channels in self.channels):
            raise FieldError("channels", f"must be multiples of 32, not {self.channels}")
        if not self.stages:
            raise FieldError("stages", "give at least one")
        for name in ("accumulation", "checkpoint_every", "log_every", "pool_steps", "correspondence_places"):
            if getattr(self, name) < 1:
                raise FieldError(name, f"must be at least 1, not {getattr(self, name)}")
        if self.trained == "temporal" and any(s.num_steps and s.num_frames == 1 for s in self.stages):
            raise FieldError("trained", "temporal layers learn nothing from single pictures", "leave out such stages")
        if self.freeze_image_encoder and self.initial is None:
            raise FieldError("freeze_image_encoder", "needs --initial", "random weights must be trained")

    @property
    def autoencoder_folder(self) -> Path:
        """Folder of the autoencoder; FieldError where no field says."""
        if self.autoencoder is not None:
            return self.autoencoder
        if self.initial is None:
            raise FieldError("autoencoder", "give its folder, or a whole model with --initial")
        return self.initial / "vae"

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

    def work(self, num_steps: int) -> int:
        """Pixels that the first so many steps compute on."""
        work = 0
        for stage in self.stages:
            done = max(0, min(num_steps, stage.num_steps))
            work += done * stage.batch_size * stage.num_frames * stage.width * stage.height
            num_steps -= done
        return work

    def decided(self, num_steps: int) -> dict[str, object]:
        """The fields that decide the weights after so many steps: folders and how a run is watched do not.

        But for the rates of the stage under way, which may be changed where a loss went astray.
        """
        fields = asdict(self)
        for name in _FREE:
            del fields[name]
        if self.initial is not None:
            del fields["channels"], fields["embedding"]
        begun = 0
        for count, stage in enumerate(self.stages):
            if begun >= num_steps:
                fields["stages"] = fields["stages"][:count]
                break
            begun += stage.num_steps
        for stage_fields in fields["stages"][-1:]:
            for name in _RATES:
                del stage_fields[name]
        return fields
