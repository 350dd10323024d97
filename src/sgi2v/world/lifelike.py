"""The lifelike world: little scenes of photographs, cut-outs and composed things, under a camera that moves."""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.world.clips import Clips, Kind, check_shape
from sgi2v.world.motion import Camera, Cast, Moves
from sgi2v.world.paint import Look, paint
from sgi2v.world.scenery import backgrounds, salience, scenery

_ROUND: Final = 4  # the side of a sprite is a multiple of this many pixels
_NUM_PLACES: Final = 12  # places of which a thing that is cut out stands at the most striking
_STRIKING: Final = 0.1  # distance of colours (0..1 each) from which a place is striking


@dataclass(frozen=True, kw_only=True)
class LifelikeWorld:
    """The settings of lifelike clips; every clip is a function of these fields, a seed, and its batch's size.

    Chances are 0..1 and independent; with all of them 0, upright things slide over a background that stays.
    """

    kind: ClassVar[Kind] = "lifelike"

    width: int = 320
    """Width of a frame in pixels."""
    height: int = 192
    """Height of a frame in pixels."""
    num_frames: int = 14
    """Frames of a clip; times run 0..1."""
    num_things: int = 3
    """Things in a scene. Thing 0 starts in view and moves, unless the clip is still; others are as they come."""
    radius: tuple[float, float] = (20.0, 64.0)
    """Smallest and largest half size of a thing in pixels."""
    travel: tuple[float, float] = (0.2, 0.9)
    """Shortest and longest way of a thing, in units of the frame's height."""
    moving_others: float = 0.4
    """Chance that a thing other than thing 0 moves."""
    passing: float = 0.3
    """Chance that a moving thing other than thing 0 comes into the frame, and that any moving thing leaves it."""
    occluder: float = 0.3
    """Chance that the last of several things stands still in front of thing 0's path."""
    cut: float = 0.45
    """Chance of a scene that is one photograph (or picture by rule) whose own regions move over what was behind them;
    in others one thing in ten is such a region."""
    turning: float = 0.5
    """Chance that a moving thing turns; that it grows or shrinks; half of it, that it sways."""
    curved: float = 0.6
    """Chance of a curved path."""
    camera: float = 0.45
    """Chance that the camera moves: pans, zooms, rolls, shakes, each by a chance of its own."""
    shadow: float = 0.5
    """Chance that the composed things of a scene throw shadows."""
    blurred: float = 0.25
    """Chance of motion blur."""
    lighting: float = 0.3
    """Chance that brightness and tint drift."""
    still: float = 0.06
    """Chance of a clip in which nothing changes at all."""
    held_out: bool = False
    """Render shapes, patterns, photographs and seeds that training never sees."""

    def __post_init__(self) -> None:
        if self.radius[0] < 4 or self.radius[1] < self.radius[0]:
            raise FieldError("", f"radius must be two rising numbers of pixels from 4 up, not {self.radius}")
        check_shape(self.width, self.height, self.radius, self.num_things, self.num_frames)

    def render(self, num: int, seed: int, *, times: Tensor | None = None, device: str = "cpu") -> Clips:
        """`num` clips, the same for the same seed on the same device; other devices differ by rounding alone.

        times: float [b, f] in 0..1, when to look at each clip; by default num_frames equally spaced times. What is
        in a clip does not depend on them.
        """
        generator = torch.Generator().manual_seed((2 * seed + int(self.held_out)) % 2**63)
        still = torch.rand(num, generator=generator) < self.still
        size = (self.height, self.width)
        canvas = backgrounds(num, size, generator, held_out=self.held_out, device=device)
        cast = _cast(self, canvas, still, generator)
        look = _look(self, num, still, generator)
        side = _ROUND * math.ceil((2.2 * self.radius[1] + 4) / _ROUND)
        scene = scenery(canvas, cast.to(device), side, generator, held_out=self.held_out)
        if times is None:
            times = torch.linspace(0, 1, self.num_frames).expand(num, -1)
        return paint(cast, look, scene, times, size, device)


def _cast(world: LifelikeWorld, canvas: Float[Tensor, "b 3 h w"], still: Tensor, generator: torch.Generator) -> Cast:
    """Draw who plays before the backgrounds and how all move, on the CPU. still [b]: clips in which nothing does."""
    num, things = len(canvas), world.num_things

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator)

    def chance(share: float, *shape: int) -> Tensor:
        return torch.rand(num, *shape, generator=generator) < share

    frame = torch.tensor([world.width, world.height], dtype=torch.float32)
    radius = uniform(*world.radius, things)
    moves = chance(world.moving_others, things)
    moves[:, 0] = True
    is_cut = chance(0.1, things) | (chance(world.cut, 1) & chance(0.9, things))
    leaves = chance(world.passing, things) & moves
    enters = chance(world.passing, things) & moves & ~leaves
    leaves[:, 0] &= chance(0.4)
    enters[:, 0] = False
    edge = radius[..., None]
    # What is cut out is the most striking of some places, if that is striking at all.
    places = edge[:, :, None] + torch.rand(num, things, _NUM_PLACES, 2, generator=generator) * (
        frame - 2 * edge[:, :, None]
    )
    strikes, best = salience(canvas, places.to(canvas.device), radius.to(canvas.device)).cpu().max(2)
    is_cut &= strikes > _STRIKING
    inner = places[torch.arange(num)[:, None], torch.arange(things), torch.where(is_cut, best, 0)]
    heading = uniform(0.0, math.tau, things)
    # Wide pictures have more way across than along.
    ahead = torch.stack([heading.cos(), heading.sin() * world.height / world.width], -1)
    ahead = ahead / ahead.norm(dim=-1, keepdim=True)
    way = uniform(*world.travel, things, 1) * world.height
    end = inner + ahead * way
    # A way that would leave the frame is mirrored at its edge, then cut.
    out = (end < 0.6 * edge) | (end > frame - 0.6 * edge)
    end = torch.where(out, inner - ahead * way, end).clamp(min=0.6 * edge, max=frame - 0.6 * edge)
    beyond = _beyond(inner, ahead, radius, frame)
    end = torch.where(leaves[..., None], beyond, end)
    start, end = torch.where(enters[..., None], beyond, inner), torch.where(enters[..., None], inner, end)
    is_cut &= ~enters
    depth = torch.rand(num, things, generator=generator)
    if things > 1:
        # The last thing stands before a place that thing 0 comes to.
        stands = chance(world.occluder)
        share = uniform(0.45, 1.0, 1)
        before = torch.lerp(start[:, 0], end[:, 0], share) + 0.3 * edge[:, 0] * uniform(-1.0, 1.0, 2)
        start[:, -1] = torch.where(stands[:, None], before, start[:, -1])
        depth[:, -1] = torch.where(stands, -1.0, depth[:, -1])
        moves[:, -1] &= ~stands
        enters[:, -1] &= ~stands
    # Whole pixels, so that a thing at its start is seen just as it was made.
    start = start.round()
    moves = (moves & ~still[:, None])[..., None]
    end = torch.where(moves, end, start)
    along = end - start
    across = torch.stack([-along[..., 1], along[..., 0]], -1)
    bend = uniform(-0.6, 0.6, things, 2) * chance(world.curved, things, 1)
    path = torch.stack(
        [start, start + along / 3 + bend[..., :1] * across, end - along / 3 + bend[..., 1:] * across, end], 2
    )
    returns = (chance(0.1, things) & ~leaves & ~enters).float()
    ease = torch.stack([uniform(0.0, 1.0, things), uniform(0.0, 1.0, things), returns], -1)
    ease[..., 1] = torch.where(returns > 0, 1.0, ease[..., 1])
    # What is cut out of a picture would look odd upside down.
    spin = uniform(-1.4, 1.4, things) * torch.where(is_cut, 0.3, 1.0) * chance(world.turning, things)
    grow = uniform(-0.4, 0.35, things) * torch.where(is_cut, 0.6, 1.0) * chance(world.turning, things)
    sway = torch.stack([uniform(0.05, 0.25, things) * chance(world.turning / 2, things), uniform(0.5, 2.5, things)], -1)
    moved = moves[..., 0].float()
    cast_moves = Moves(path=path, ease=ease, spin=spin * moved, grow=grow * moved, sway=sway * moved[..., None])
    return Cast(
        moves=cast_moves,
        camera=_camera(num, frame, chance(world.camera) & ~still, generator),
        radius=radius,
        depth=depth,
        is_cut=is_cut,
    )


def _beyond(inner: Tensor, ahead: Tensor, radius: Tensor, frame: Tensor) -> Float[Tensor, "b n 2"]:
    """Places ahead of `inner` at which things are wholly out of the frame."""
    goal = torch.where(ahead > 0, frame + 1.1 * radius[..., None], -1.1 * radius[..., None])
    least = torch.where(ahead > 0, 1e-3, -1e-3)  # along an edge: far away, but ahead
    steps = (goal - inner) / torch.where(ahead.abs() < 1e-3, least, ahead)
    return inner + ahead * steps.amin(-1, keepdim=True)


def _camera(num: int, frame: Tensor, moves: Tensor, generator: torch.Generator) -> Camera:
    draw = torch.rand(num, 16, generator=generator)
    moves = moves.float()
    pan, zoom, roll, shake = ((draw[:, 4:8] < torch.tensor([0.7, 0.5, 0.25, 0.3])) * moves[:, None]).unbind(1)
    sines = torch.rand(num, 3, 4, generator=generator)
    size = (sines[..., :2] - 0.5) * 0.008 * frame.amin() * shake[:, None, None]
    return Camera(
        pan=0.32 * (draw[:, :2] - 0.5) * frame * pan[:, None],
        zoom=0.5 * (draw[:, 2] - 0.45) * zoom,
        roll=0.3 * (draw[:, 3] - 0.5) * roll,
        ease=torch.stack([draw[:, 8], draw[:, 9], torch.zeros(num)], 1),
        shake=torch.cat([size, 1 + 5 * sines[..., 2:3], math.tau * sines[..., 3:]], -1),
    )


def _look(world: LifelikeWorld, num: int, still: Tensor, generator: torch.Generator) -> Look:
    """Draw how the clips are lit and exposed."""
    draw = torch.rand(num, 8, generator=generator)
    drifts = ((draw[:, 0] < world.lighting) & ~still)[:, None].float()
    gain = 0.36 * (draw[:, 1:2] - 0.5) + 0.12 * (draw[:, 2:5] - 0.5)
    side = math.pi * (0.15 + 0.7 * draw[:, 6])
    blurs = (torch.rand(num, generator=generator) < world.blurred) & ~still
    exposed = (0.3 + 0.5 * draw[:, 4]) / max(1, world.num_frames - 1)
    return Look(
        light=gain * drifts,
        shadow=torch.where(draw[:, 5] < world.shadow, 0.25 + 0.3 * draw[:, 7], 0.0),
        fall=torch.stack([side.cos(), side.sin()], -1),
        shutter=exposed * blurs,
    )
