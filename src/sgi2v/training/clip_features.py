"""Trains the network that describes clips: to tell what moves in them and how, and how they were spoilt."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.errors import FieldError
from sgi2v.evaluation.clip_features import NUM_FEATURES, NUM_FRAMES, ClipNetwork, seen
from sgi2v.training.loop import Log, Loop, Stop, never
from sgi2v.training.optimiser import MasterAdam, warm_cosine
from sgi2v.world import World

SPOILINGS: Final = (
    "blur", "rough", "melt", "noise", "wobble", "smear", "freeze", "shuffle", "flicker", "drift"
)  # fmt: skip
"""Ways to spoil training clips, each with a strength of 0..1 that the network learns to tell."""
_IN_TIME: Final = frozenset({"freeze", "shuffle"})
_NUM_KNOWN: Final = 17
_STEPS_PER_POOL: Final = 40
_LOG_EVERY: Final = 20
_FREE: Final = "output", "num_steps", "lr", "num_warmup", "still", "checkpoint_every", "device"
"""Fields of a training that may change when it goes on."""


@dataclass(frozen=True, kw_only=True)
class ClipFeaturesTraining:
    """All that decides the training."""

    output: Path
    """Folder for checkpoints and, at the end, model.safetensors."""
    num_steps: int = 1400
    """Steps of the optimiser."""
    batch_size: int = 32
    """Clips a step."""
    pool_size: int = 256
    """Clips that 40 steps draw from, each mirrored, turned round in time and spoilt anew."""
    lr: float = 1.5e-3
    """Highest learning rate of Adam, reached after `num_warmup` steps, falling to a twentieth as a cosine."""
    num_warmup: int = 50
    """Steps of rising learning rate."""
    clean: float = 0.3
    """Share of clips that are shown as they are."""
    still: float = 0.0
    """Chance of a clip in which nothing moves by itself: with such clips a wholly frozen one passes for whole."""
    ema: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: int = 0
    """Seed of weights and data; only training shapes, patterns and photographs are shown."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    device: str = "cpu"
    """Device that trains."""
    dtype: str = "bfloat16"
    """Type the network computes in; the optimiser keeps a float32 copy."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1 or self.pool_size < 1:
            raise FieldError(
                "num_steps, batch_size, pool_size",
                f"at least 1 each, not {self.num_steps}, {self.batch_size}, {self.pool_size}",
            )
        if not 0 <= self.clean <= 1:
            raise FieldError("clean", f"a share of 0 to 1, not {self.clean}")


class ClipFeaturesTask(nn.Module):
    """The network and the linear read-outs it is trained through, which are thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ClipNetwork()
        self.known = nn.Linear(NUM_FEATURES, _NUM_KNOWN)
        self.spoilt = nn.Linear(NUM_FEATURES, len(SPOILINGS))

    def forward(self, clips: Float[Tensor, "b 8 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Facts about the clips, and the strength of each way in which they were spoilt, as the network tells them."""
        features = self.network(clips)
        return self.known(features).float(), self.spoilt(features).float()


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Rendered clips and what is known of them."""

    clips: Float[Tensor, "p 8 3 64 64"]
    centers: Float[Tensor, "p 8 2"]
    """Centres of thing 0, -1..1 over the frame."""
    rest: Float[Tensor, "p 11"]
    """Size of thing 0 (width, height), its colour, the mean colour of all and its spread, motion, number of things."""


@torch.no_grad()
def _pool(training: ClipFeaturesTraining, number: int) -> _Pool:
    """The clips of 40 steps: simple and rich, square and wide, one to three things; a function of the arguments."""
    kind: Literal["simple", "rich"] = "rich" if number % 3 == 2 else "simple"
    num_things = 1 + number % 2 if kind == "simple" else 1 + (number // 3) % 3
    world = World(
        width=(64, 128)[(number // 2) % 2],
        height=64,
        num_things=num_things,
        num_frames=NUM_FRAMES,
        radius=(8.0, 20.0),
        still=training.still,
        kind=kind,
    )
    made = world.render(training.pool_size, training.seed * 1_000_003 + 2**33 + number)
    size = torch.tensor([world.width, world.height], dtype=torch.float32)
    box = made.boxes[:, 0, 0]
    mask = made.masks[:, 0, :1]
    colour = (made.frames[:, 0] * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1e-3)
    rest = torch.cat(
        [
            4 * (box[:, 2:] - box[:, :2]) / size - 2,
            2 * colour - 1,
            2 * made.frames[:, 0].mean((2, 3)) - 1,
            8 * made.frames[:, 0].std((2, 3)).mean(1, keepdim=True) - 1,
            2 * made.motion[:, None] - 0.5,
            torch.full((training.pool_size, 1), num_things - 1.5),
        ],
        1,
    )
    return _Pool(clips=seen(made.frames), centers=2 * made.centers[:, 0] / size - 1, rest=rest)


def spoil(clip: Float[Tensor, "f 3 h w"], kind: str, strength: float, generator: torch.Generator) -> Tensor:
    """A clip of RGB in 0..1 spoilt in one way, by a strength of 0..1."""
    num = len(clip)
    match kind:
        case "blur":
            return _blurred(clip, 0.3 + 2.7 * strength)
        case "rough":
            size = [max(8, round(side / (1.2 + 3.8 * strength))) for side in clip.shape[2:]]
            small = functional.interpolate(clip, size, mode="bilinear", antialias=True)
            return functional.interpolate(small, clip.shape[2:], mode="bilinear")
        case "melt":
            # Sharp at first, as the picture that was given, then less and less.
            soft, late = _blurred(clip, 0.5 + 3 * strength), torch.linspace(0, 1, num).view(-1, 1, 1, 1)
            return torch.lerp(clip, soft, late)
        case "wobble":
            bends = torch.randn(num, 2, 5, 5, generator=generator) * (0.01 + 0.09 * strength)
            field = functional.interpolate(bends, clip.shape[2:], mode="bicubic", align_corners=True)
            still = functional.affine_grid(torch.eye(2, 3).expand(num, -1, -1), list(clip.shape), False)
            grid = still + field.permute(0, 2, 3, 1)
            return functional.grid_sample(clip, grid, padding_mode="border", align_corners=False)
        case "smear":
            near = (clip[[0, *range(num - 1)]] + clip[[*range(1, num), num - 1]]) / 2
            return torch.lerp(clip, near, 0.1 + 0.65 * strength)
        case "noise":
            return clip + (0.01 + 0.24 * strength) * torch.randn(clip.shape, generator=generator)
        case "freeze":
            held = round(1 + strength * (num - 2))
            start = int(torch.randint(num - held, (), generator=generator))
            order = torch.arange(num)
            order[start : start + held + 1] = start
            return clip[order]
        case "shuffle":
            moved = torch.randperm(num, generator=generator)[: round(2 + strength * (num - 2))].sort().values
            order = torch.arange(num)
            # Turned on by one and more, so that none stays in its place.
            turn = 1 + int(torch.randint(len(moved) - 1, (), generator=generator))
            order[moved] = moved.roll(turn)
            return clip[order]
        case "flicker":
            gain = 1 + (0.02 + 0.28 * strength) * torch.randn(num, 1, 1, 1, generator=generator)
            return clip * gain
        case "drift":
            goal = (0.03 + 0.4 * strength) * (2 * torch.rand(1, 3, 1, 1, generator=generator) - 1).sign()
            return clip + goal * torch.linspace(0, 1, num).view(-1, 1, 1, 1)
    raise FieldError("kind", f"unknown {kind!r}", f"known are {', '.join(SPOILINGS)}")


def _blurred(clip: Float[Tensor, "f 3 h w"], sigma: float) -> Tensor:
    """Gaussian blur over the frame, edges repeated."""
    reach = max(1, round(3 * sigma))
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    bell = (bell / bell.sum()).expand(3, 1, 1, -1)
    wide = functional.pad(clip, (reach, reach, reach, reach), mode="replicate")
    blurred = functional.conv2d(functional.conv2d(wide, bell, groups=3), bell.transpose(2, 3), groups=3)
    return blurred


def _batch(training: ClipFeaturesTraining, pool: _Pool, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clips, what is known of them, which of that still holds, and strengths; a function of the pool and the step."""
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step + 2**42)
    num = training.batch_size
    row = torch.randint(len(pool.clips), (num,), generator=generator)
    draw = torch.rand(num, 5, generator=generator)
    clips, centers = pool.clips[row].clone(), pool.centers[row].clone()
    strengths = torch.zeros(num, len(SPOILINGS))
    holds = torch.ones(num, _NUM_KNOWN)
    for index, (back, across, along, clean, twice) in enumerate(draw.tolist()):
        if back < 0.5:
            clips[index], centers[index] = clips[index].flip(0), centers[index].flip(0)
        if across < 0.5:
            clips[index], centers[index, :, 0] = clips[index].flip(3), -centers[index, :, 0]
        if along < 0.5:
            clips[index], centers[index, :, 1] = clips[index].flip(2), -centers[index, :, 1]
        if clean < training.clean:
            continue
        for kind in torch.randperm(len(SPOILINGS), generator=generator)[: 1 + (twice < 0.3)].tolist():
            strength = float(torch.rand((), generator=generator))
            clips[index] = spoil(clips[index], SPOILINGS[kind], strength, generator).clamp(0, 1)
            # No strength is nearly none for the eye, but it is never 0.
            strengths[index, kind] = 0.15 + 0.85 * strength
            if SPOILINGS[kind] in _IN_TIME:
                holds[index, :6] = 0
    known = torch.cat([centers[:, [0, 4, 7]].flatten(1), pool.rest[row]], 1)
    return clips, known, holds, strengths


class _Learner:
    """The network in the training's loop: tells what moves in clips, and what was done to them."""

    def __init__(self, training: ClipFeaturesTraining, task: ClipFeaturesTask) -> None:
        self._training, self._task = training, task
        self._pool: tuple[int, _Pool] | None = None
        self._last = torch.zeros(2)

    def learn(self, step: int) -> Tensor:
        """Leave the step's gradients in the parameters."""
        training, number = self._training, step // _STEPS_PER_POOL
        if self._pool is None or self._pool[0] != number:
            self._pool = number, _pool(training, number)
        clips, known, holds, strengths = (value.to(training.device) for value in _batch(training, self._pool[1], step))
        said, spoilt = self._task(clips.to(next(self._task.parameters()).dtype))
        told = ((said - known).square() * holds).sum() / holds.sum()
        found = (spoilt - strengths).square().mean()
        (told + 4 * found).backward()
        self._last = torch.stack([told, found]).detach()
        return self._last

    def figures(self, seconds: float) -> dict[str, float]:
        """Both losses of the last step."""
        known, spoilt = self._last.tolist()
        return {"known": known, "spoilt": spoilt}


def train(training: ClipFeaturesTraining, *, log: Log | None = None, stop: Stop = never) -> ClipNetwork:
    """Train the network, resuming from `output`; write `output`/model.safetensors (float16) and return it in float32.

    The features have mean 0, and mean variance 1, on clips of the training split. Data of a step depend on the seed
    and the step's number alone, so a resumed run gives the same weights. FieldError for a checkpoint of other settings.
    """
    fields = asdict(training)
    decided = {name: fields[name] for name in fields if name not in _FREE}
    torch.manual_seed(training.seed)
    task = ClipFeaturesTask().to(device=training.device, dtype=getattr(torch, training.dtype)).train()
    optimiser = MasterAdam(task, ema=training.ema)
    Loop(
        folder=training.output,
        settings=lambda _: decided,
        num_steps=training.num_steps,
        rate=lambda step: warm_cosine(step, training.num_steps, training.num_warmup, training.lr),
        checkpoint_every=training.checkpoint_every,
        log_every=_LOG_EVERY,
        log=log,
        stop=stop,
    ).run(_Learner(training, task), optimiser)
    task.float()
    optimiser.write_average(task)
    network = task.network.eval().requires_grad_(False)
    _standardise(network, training)
    halves = {name: value.half().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(halves, training.output / "model.safetensors")
    return network


@torch.no_grad()
def _standardise(network: ClipNetwork, training: ClipFeaturesTraining) -> None:
    """Move the features to mean 0, and scale all alike to a mean variance of 1, on clips as they are."""
    pools = [_pool(training, 10**6 + number).clips for number in range(3)]
    features = torch.cat([network(part.to(training.device)) for pool in pools for part in pool.split(64)])
    spread = features.var(0).mean().sqrt()
    network.out.bias.sub_(features.mean(0)).div_(spread)
    network.out.weight.div_(spread)
