"""The plain worlds: textured shapes, simple or rich. Reported figures hang on them, so no pixel of them changes."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sgi2v.errors import FieldError
from sgi2v.world.clips import Clips, check_shape
from sgi2v.world.layers import Layers, similarity
from sgi2v.world.outlines import NUM_ANGLES, cover_of, outlines
from sgi2v.world.pictures import mixed_pictures

_TEXTURE = 32


@dataclass(frozen=True, kw_only=True)
class World:
    """The settings of plain clips; every clip is a function of these fields and a seed."""

    width: int = 128
    """Width of a frame in pixels."""
    height: int = 64
    """Height of a frame in pixels."""
    num_frames: int = 14
    """Frames of a clip; times run 0..1."""
    num_things: int = 2
    """Things in a scene; thing 0 moves and is drawn on top, every other moves with `moving_others`."""
    radius: tuple[float, float] = (12.0, 20.0)
    """Smallest and largest half size of a thing in pixels."""
    travel: tuple[float, float] = (0.25, 0.9)
    """Shortest and longest way of a thing, in units of the frame's height (cut where the frame ends)."""
    moving_others: float = 0.5
    """Chance that a thing other than thing 0 moves."""
    still: float = 0.06
    """Chance of a clip in which nothing moves."""
    kind: Literal["simple", "rich"] = "simple"
    """'simple': smooth backgrounds, upright things of clearly another colour, a still camera. 'rich':
    photograph-like backgrounds, turning and growing things of strong patterns, a camera that pans and zooms."""
    held_out: bool = False
    """Render shapes, textures, photographs and seeds that training never sees."""

    def __post_init__(self) -> None:
        if self.radius[0] <= 0 or self.radius[1] < self.radius[0]:
            raise FieldError("", f"radius must be two rising positive numbers of pixels, not {self.radius}")
        check_shape(self.width, self.height, self.radius, self.num_things, self.num_frames)

    def render(self, num: int, seed: int, *, times: Tensor | None = None, device: str = "cpu") -> Clips:
        """`num` clips, the same for the same seed on the same device.

        times: float [b, f] in 0..1, when to look at each clip; by default num_frames equally spaced times. What is
        in a clip does not depend on them.
        """
        generator = torch.Generator().manual_seed((2 * seed + int(self.held_out)) % 2**63)
        plan = _plan(self, num, generator)
        plan = {name: value.to(device) for name, value in plan.items()}
        if times is None:
            times = torch.linspace(0, 1, self.num_frames).expand(num, -1)
        return _draw(self, plan, times.to(device))


def _plan(world: World, num: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw all that is random about the clips, on the CPU, so that devices agree."""
    things, rich = world.num_things, world.kind == "rich"

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator)

    plan: dict[str, Tensor] = {}
    plan["radius"] = uniform(*world.radius, things)
    frame = torch.tensor([world.width, world.height], dtype=torch.float32)
    room = frame - 2 * plan["radius"][..., None]
    start = plan["radius"][..., None] + torch.rand(num, things, 2, generator=generator) * room
    heading = uniform(0.0, math.tau, things)
    way = uniform(*world.travel, things) * world.height
    step = torch.stack([heading.cos(), heading.sin()], -1) * way[..., None]
    low, high = plan["radius"][..., None], frame - plan["radius"][..., None]
    # A way that would leave the frame is mirrored at its edge, then cut.
    end = start + step
    end = torch.where((end < low) | (end > high), start - step, end).clamp(low, high)
    bend = torch.stack([-(end - start)[..., 1], (end - start)[..., 0]], -1) * uniform(-0.4, 0.4, things, 1)
    bend = bend * (uniform(0.0, 1.0, things, 1) < 0.6)
    middle = ((start + end) / 2 + bend).clamp(low, high)
    moves = uniform(0.0, 1.0, things) < world.moving_others
    moves[:, 0] = True
    moves &= uniform(0.0, 1.0, 1) >= world.still
    moves = moves[..., None]
    plan["start"], plan["middle"], plan["end"] = (
        start,
        torch.where(moves, middle, start),
        torch.where(moves, end, start),
    )
    plan["ease"] = uniform(0.0, 1.0, 1)
    angle = uniform(0.0, math.tau, things) if rich else uniform(-0.3, 0.3, things)
    spin = uniform(-1.2, 1.2, things) * (uniform(0.0, 1.0, things) < 0.5) * moves[..., 0]
    grow = uniform(-0.35, 0.35, things) * (uniform(0.0, 1.0, things) < 0.4) * moves[..., 0]
    plan["angle"] = angle
    plan["spin"], plan["grow"] = (spin, grow) if rich else (torch.zeros_like(spin), torch.zeros_like(grow))
    pan = uniform(-0.2, 0.2, 2) * frame * (uniform(0.0, 1.0, 1) < 0.5)
    zoom = uniform(-0.2, 0.2, 1) * (uniform(0.0, 1.0, 1) < 0.5)
    plan["pan"], plan["zoom"] = (pan, zoom) if rich else (torch.zeros_like(pan), torch.zeros_like(zoom))
    plan["outline"] = outlines((num, world.num_things), generator, held_out=world.held_out)
    colour = torch.rand(num, 3, 1, 1, generator=generator)
    plan["texture"] = _textures(world, colour, generator)
    plan["background"] = _backgrounds(world, colour, generator)
    return plan


def _textures(
    world: World, background: Float[Tensor, "b 3 1 1"], generator: torch.Generator
) -> Float[Tensor, "b n 3 t t"]:
    """A distinct texture for each thing: two colours in a pattern, or a picture; 0..1."""
    num = len(background)
    count = num * world.num_things
    draw = torch.rand(count, 12, 1, 1, generator=generator)
    # Colours are far from each other in every channel: the first from the background's, the second from the first.
    behind = background[:, None].expand(-1, world.num_things, -1, -1, -1).flatten(0, 1)
    first = torch.remainder(behind + 0.35 + 0.3 * draw[:, 0:3], 1.0)
    second = torch.remainder(first + 0.35 + 0.3 * draw[:, 3:6], 1.0)
    if world.kind == "simple":
        second = torch.lerp(first, second, 0.4)
    y = torch.linspace(-1, 1, _TEXTURE).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, _TEXTURE).view(1, 1, 1, -1)
    turn = math.tau * draw[:, 6:7]
    u, v = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    rate = 2.5 + 3.5 * draw[:, 7:8]
    phase = math.tau * draw[:, 8:9]
    wave_u, wave_v = torch.sin(rate * u + phase), torch.sin(rate * v)
    half = (u + (draw[:, 9:10] - 0.5)) * 8
    if world.held_out:
        rings = torch.sin(1.5 * rate * (u**2 + v**2 + 1e-6).sqrt() + phase)
        patterns = torch.stack([rings, wave_u + wave_v, half * wave_v])
    else:
        patterns = torch.stack([wave_u, wave_u * wave_v * 2, half])
    kind = (draw[:, 10, 0, 0] * len(patterns)).long()
    pattern = patterns[kind, torch.arange(count)]
    texture = torch.lerp(first, second, torch.sigmoid(3 * pattern))
    pictures = draw[:, 11, 0, 0] < 0.5
    if world.kind == "rich" and pictures.any():
        found = mixed_pictures(int(pictures.sum()), _TEXTURE, _TEXTURE, generator, held_out=world.held_out)
        tint = torch.rand(len(found), 3, 1, 1, generator=generator)
        texture[pictures] = torch.lerp(found, tint.expand_as(found), 0.35)
    textures: Tensor = texture.unflatten(0, (num, world.num_things))
    return textures


def _backgrounds(
    world: World, colour: Float[Tensor, "b 3 1 1"], generator: torch.Generator
) -> Float[Tensor, "b 3 hc wc"]:
    """Backgrounds twice as wide and high as the frame when the camera moves, else the frame's size; 0..1."""
    if world.kind == "rich":
        # Rendered at frame size and enlarged: pictures of the real world are smoother than things before them.
        num = len(colour)
        pictures = mixed_pictures(num, world.height, world.width, generator, held_out=world.held_out)
        order = torch.randperm(num, generator=generator)
        return functional.interpolate(pictures[order], scale_factor=2, mode="bilinear")
    noise = torch.rand(len(colour), 3, 3, 4, generator=generator) - 0.5
    smooth = functional.interpolate(noise, (world.height, world.width), mode="bicubic", align_corners=True)
    return (0.05 + 0.9 * colour + 0.25 * smooth).clamp_(0, 1)


def _draw(world: World, plan: dict[str, Tensor], times: Float[Tensor, "b f"]) -> Clips:
    """Look at the planned clips at the given times."""
    num, num_times = times.shape
    frame = torch.tensor([world.width, world.height], dtype=torch.float32, device=times.device)
    smooth = times * times * (3 - 2 * times)
    pace = torch.where(plan["ease"] < 0.5, times, smooth)[:, None, :, None]
    start, middle, end = (plan[name][:, :, None] for name in ("start", "middle", "end"))
    control = 2 * middle - (start + end) / 2
    place = (1 - pace) ** 2 * start + 2 * pace * (1 - pace) * control + pace**2 * end
    angle = plan["angle"][..., None] + plan["spin"][..., None] * pace[..., 0]
    scale = plan["radius"][..., None] * torch.exp(plan["grow"][..., None] * pace[..., 0])
    zoom = torch.exp(plan["zoom"][..., None] * pace[..., 0])[..., None]
    pan = plan["pan"][:, None, None] * pace
    place = (place - frame / 2 - pan) * zoom + frame / 2
    scale = scale * zoom[..., 0]

    y = torch.arange(world.height, device=times.device).view(-1, 1) + 0.5
    x = torch.arange(world.width, device=times.device).view(1, -1) + 0.5
    frames = _background(world, plan["background"], pan, zoom, num_times)
    masks = torch.empty(num, world.num_things, num_times, world.height, world.width, device=times.device)
    for thing in reversed(range(world.num_things)):
        at = place[:, thing, :, :, None, None]
        dx, dy = x - at[:, :, 0], y - at[:, :, 1]
        turn = angle[:, thing, :, None, None]
        size = scale[:, thing, :, None, None]
        u, v = (dx * turn.cos() + dy * turn.sin()) / size, (dy * turn.cos() - dx * turn.sin()) / size
        cover = cover_of(plan["outline"][:, thing], u, v, size)
        texture = plan["texture"][:, thing, None].expand(-1, num_times, -1, -1, -1).flatten(0, 1)
        grid = torch.stack([u, v], -1).flatten(0, 1)
        colour = functional.grid_sample(texture, grid, padding_mode="border", align_corners=True)
        frames = torch.lerp(frames, colour.unflatten(0, (num, num_times)), cover[:, :, None])
        masks[:, thing + 1 :] *= 1 - cover[:, None]
        masks[:, thing] = cover
    boxes = _boxes(plan["outline"], place, angle, scale)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    return Clips(
        frames=frames,
        boxes=boxes,
        centers=centers,
        layers=Layers(
            poses=torch.cat([similarity(angle, scale, place), _ground(frame, pan, zoom)], 1),
            masks=torch.cat([masks, (1 - masks.sum(1, keepdim=True)).clamp(min=0)], 1),
        ),
        kind=world.kind,
        motion=_motion(world, plan),
        camera=torch.cat([pan, zoom], -1)[:, 0],
    )


def _boxes(outline: Tensor, place: Tensor, angle: Tensor, scale: Tensor) -> Float[Tensor, "b n f 4"]:
    """Boxes around the outlines [b, n, a] at their places [b, n, f, 2]."""
    turn = torch.arange(NUM_ANGLES, device=outline.device) * (math.tau / NUM_ANGLES) + angle[..., None]
    reach = outline[:, :, None] * scale[..., None]
    across, along = reach * turn.cos(), reach * turn.sin()
    low = torch.stack([across.amin(-1), along.amin(-1)], -1)
    high = torch.stack([across.amax(-1), along.amax(-1)], -1)
    return torch.cat([place + low, place + high], -1)


def _background(world: World, canvas: Tensor, pan: Tensor, zoom: Tensor, num_times: int) -> Tensor:
    """The background as the camera sees it, [b, f, 3, h, w]."""
    if world.kind == "simple":
        return canvas[:, None].expand(-1, num_times, -1, -1, -1)
    device = canvas.device
    y = (torch.arange(world.height, device=device) + 0.5 - world.height / 2).view(-1, 1)
    x = (torch.arange(world.width, device=device) + 0.5 - world.width / 2).view(1, -1)
    pan, zoom = pan[:, 0, :, :, None, None], zoom[:, 0, :, :, None]
    # The canvas is twice the frame, so a frame's half width is half of the canvas's.
    across = (x / zoom + pan[:, :, 0]) / world.width
    along = (y / zoom + pan[:, :, 1]) / world.height
    grid = torch.stack(torch.broadcast_tensors(across, along), -1).flatten(0, 1)
    source = canvas[:, None].expand(-1, num_times, -1, -1, -1).flatten(0, 1)
    seen = functional.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    frames: Tensor = seen.unflatten(0, (-1, num_times))
    return frames


def _ground(frame: Tensor, pan: Tensor, zoom: Tensor) -> Float[Tensor, "b 1 f 2 3"]:
    """The background's pose: its own coordinates are pixels of a camera that has not moved."""
    flat = zoom[..., 0]
    return similarity(torch.zeros_like(flat), flat, frame / 2 - (frame / 2 + pan) * zoom)


def _motion(world: World, plan: dict[str, Tensor]) -> Float[Tensor, " b"]:
    """The longest path of a thing in each clip, over the frame's diagonal."""
    way = (plan["middle"] - plan["start"]).norm(dim=-1) + (plan["end"] - plan["middle"]).norm(dim=-1)
    longest: Tensor = way.amax(1)
    return longest / math.hypot(world.width, world.height)
