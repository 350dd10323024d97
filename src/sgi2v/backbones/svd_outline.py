"""What is known of a Stable Video Diffusion model before its networks are loaded: settings, sizes, schedule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import EulerDiscreteScheduler

from sgi2v.backbones.base import Level, Settings, settings_with
from sgi2v.backbones.folder import SETTINGS_FILE, check_folder, find_folder, read_json
from sgi2v.grid import Grid


def _recipes() -> dict[str, dict[str, Any]]:
    """Ways to draw with the full-size model; what each costs is counted in benchmarks/README.md."""
    cheap = {"iterations": 3, "lr": 0.35, "reuse_deep": True}
    return {"paper": {"num_steps": 50}, "quick": {"num_steps": 25, "recommended": {"sg-i2v": cheap}}}


@dataclass(frozen=True, kw_only=True)
class SVDSettings(Settings):
    """What Stable Video Diffusion is conditioned on besides the image; SG-I2V's published values as defaults."""

    fps: int = 7
    """Frames per second of the video; the network is told one less, as it was trained."""
    motion_bucket_id: int = 127
    """Amount of motion the network is asked for, 0 to 255."""
    noise_aug_strength: float = 0.02
    """Deviation of the noise added to the conditioning image, whose values lie in -1..1."""
    min_guidance_scale: float = 1.0
    """Classifier-free guidance at the first frame (1: none)."""
    max_guidance_scale: float = 3.0
    """Classifier-free guidance at the last frame; linear in between."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels s = noise / (signal + noise) at which there is guidance, lowest and highest; elsewhere a step costs
    half. 0 and 1: everywhere."""
    decode_chunk_size: int = 8
    """Frames decoded at a time; the decoder mixes the frames of a chunk, so this changes the result."""
    bfloat16_on_cpu: bool = False
    """Whether this model's pictures bear bfloat16, so that a CPU that is fast at it may use it unasked."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=_recipes)
    """Name of a recipe -> the settings it changes: paper, SG-I2V as published, and quick, a third of its operations."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("fps", 1, 240),
            ("motion_bucket_id", 0, 1023),
            ("noise_aug_strength", 0, 10),
            ("min_guidance_scale", 0, 100),
            ("max_guidance_scale", 0, 100),
            ("decode_chunk_size", 1, 1024),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"settings.{name}: must lie in {low}..{high}, got {value}")
        interval = self.guidance_interval
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(
                f"settings.guidance_interval: two noise levels in 0..1, the lowest first, got {interval}"
            )


def settings_of(source: str) -> SVDSettings:
    """The settings a model's folder recommends, without loading the model: published ones where it says nothing.

    A hub id's folder is not fetched for this. Raises ValueError naming the file and field when they are unusable.
    """
    folder = Path(source)
    if source == "svd-xt" or source.endswith("img2vid-xt"):
        return SVDSettings(num_frames=25)
    if source in ("svd",) or (source != "bundled" and not folder.is_dir()):
        return SVDSettings()
    return folder_settings(find_folder(source, half=False))


def folder_settings(folder: Path) -> SVDSettings:
    """The settings in a folder's sgi2v.json; without one the published, with as many frames as its network."""
    file = folder / SETTINGS_FILE
    if file.is_file():
        settings = settings_with(SVDSettings(recipes={}), read_json(file), str(file))
        assert isinstance(settings, SVDSettings)
        return settings
    config = folder / "unet" / "config.json"
    num_frames = read_json(config).get("num_frames", 14) if config.is_file() else 14
    return SVDSettings(num_frames=num_frames)


@dataclass(frozen=True, kw_only=True)
class SVDOutline:
    """A model's folder as its configuration tells it: enough to refuse a run that cannot work before it is loaded."""

    folder: Path
    settings: SVDSettings
    stride: int
    """Pixels per latent cell, both ways."""
    channels: int
    """Channels of the latents."""
    scheduler: Mapping[str, Any]
    """The scheduler's configuration."""

    @classmethod
    def of(cls, folder: Path, settings: SVDSettings | None = None) -> "SVDOutline":
        """Read a folder; ValueError naming the file when it is incomplete, corrupt, or no Stable Video Diffusion."""
        check_folder(folder)
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
        for name, wanted in (("prediction_type", "v_prediction"), ("timestep_type", "continuous")):
            if scheduler.get(name) != wanted:
                raise ValueError(
                    f"backbone: {folder}/scheduler/scheduler_config.json: {name} must be {wanted!r} as in SVD, "
                    f"got {scheduler.get(name)!r}"
                )
        levels = read_json(folder / "vae" / "config.json").get("block_out_channels")
        channels = read_json(folder / "unet" / "config.json").get("out_channels")
        if not (isinstance(levels, list) and levels and isinstance(channels, int)):
            raise ValueError(
                f"backbone: {folder} is no Stable Video Diffusion model: vae/config.json must give block_out_channels "
                "and unet/config.json out_channels"
            )
        return cls(
            folder=folder,
            settings=settings or folder_settings(folder),
            stride=2 ** (len(levels) - 1),
            channels=channels,
            scheduler=scheduler,
        )

    def levels(self, num_steps: int) -> Sequence[Level]:
        """The scheduler's sigmas as levels (SVD: Karras spacing, 700 to 0.002, then 0); x = x0 + sigma * noise."""
        scheduler = EulerDiscreteScheduler.from_config(dict(self.scheduler))
        scheduler.set_timesteps(num_steps)
        return [Level(signal=1.0, noise=float(sigma)) for sigma in scheduler.sigmas]

    def grid(self, width: int, height: int, num_frames: int) -> Grid:
        """Latent grid of a size in pixels; ValueError naming the nearest sizes when it is not a multiple."""
        stride = self.stride
        for name, size in (("width", width), ("height", height)):
            below, above = size // stride * stride, -(-size // stride) * stride
            if size < 2 * stride or size > 4096:
                raise ValueError(f"{name}: must lie in {2 * stride}..4096 pixels, got {size}")
            if below != size:
                raise ValueError(
                    f"{name}: must be a multiple of {stride}, got {size}; nearest are {below} and {above}"
                )
        if not 2 <= num_frames <= 256:
            raise ValueError(f"num_frames: must lie in 2..256, got {num_frames}")
        return Grid(width=width, height=height, num_frames=num_frames, stride=stride, channels=self.channels)
