"""A small random video transformer: joint attention over all frames and places, text beside it, flow matching."""

import math
import zlib
from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sgi2v.attention import attend

PATCH: Final = 2
"""Latent cells of a token, both ways."""
WORDS: Final = 64
"""Rows of the table of words; the first stands for no word."""
MAX_WORDS: Final = 8
"""Words of a prompt that are read."""


def words_of(text: str) -> Int64[Tensor, " w"]:
    """A prompt's words as rows of the table, one for an empty prompt; the same in every process, unlike ``hash``."""
    rows = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in text.lower().split()[:MAX_WORDS]]
    return torch.tensor(rows or [0])


def waves(values: Float[Tensor, "*n"], width: int) -> Float[Tensor, "*n width"]:
    """Sine and cosine of a number at geometrically spaced frequencies (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(width // 2, device=values.device) * (-math.log(1e3) / (width // 2)))
    angles = values[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over all heads at once, with a gain a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of unit mean square, times the gain."""
        scale = tokens.float().pow(2).mean(dim=-1, keepdim=True).add(1e-6).rsqrt()
        return tokens * scale.to(tokens.dtype) * self.weight


class Attention(nn.Module):
    """Attention of several heads with normed queries and keys, from one set of tokens to another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(width), RMSNorm(width)

    def forward(self, tokens: Float[Tensor, "1 q d"], context: Float[Tensor, "1 k d"]) -> Tensor:
        """Gathers for each token from the context."""
        value = self.to_v(context)
        query, key = self.norm_q(self.to_q(tokens)), self.norm_k(self.to_k(context))
        gathered: Tensor = self.to_out(attend(query, key, value, self.heads))
        return gathered


class Block(nn.Module):
    """Self-attention over the whole clip, cross-attention to the text, a feed-forward part; modulated by time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        self.attn1, self.attn2 = Attention(width, heads), Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, tokens: Tensor, text: Tensor, time: Float[Tensor, "1 t d"]) -> Tensor:
        """The tokens after this block; ``time`` has a row for every token."""
        shift, scale, gate = self.modulation(time).chunk(3, dim=-1)
        seen = self.norm(tokens) * (1 + scale) + shift
        tokens = tokens + (1 + gate) * self.attn1(seen, seen)
        tokens = tokens + self.attn2(self.norm(tokens), text)
        after: Tensor = tokens + self.feed(self.norm(tokens))
        return after


class ToyFlowTransformer(nn.Module):
    """Velocity of flow matching at noisy latents whose first frame is the clean picture."""

    def __init__(self, *, channels: int, width: int, heads: int, num_blocks: int) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(WORDS, width)
        self.patches = nn.Linear(channels * PATCH**2, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out = nn.Linear(width, channels * PATCH**2)

    def forward(
        self,
        x: Float[Tensor, "n c y x"],
        times: Float[Tensor, " n"],
        words: Int64[Tensor, " w"],
    ) -> Float[Tensor, "n c y x"]:
        """The velocity in every frame; ``times`` is what the network is told of each frame, 0 for a clean one.

        The picture's own stillness is built in, ``x - x_0`` beside what the blocks say: random weights then make
        videos of the picture rather than of noise.
        """
        frames, channels, rows, columns = x.shape
        cut = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH)).permute(0, 2, 4, 1, 3, 5)
        tokens = self.patches(cut.flatten(3)) + self._places(frames, rows // PATCH, columns // PATCH, x)
        per_frame = self.time(waves(times, self.width).to(x.dtype))
        time = per_frame[:, None, None].expand_as(tokens).flatten(0, 2)[None]
        text = self.words(words)[None]
        hidden = tokens.flatten(0, 2)[None]
        for block in self.blocks:
            hidden = block(hidden, text, time)
        spoken = self.out(self.norm(hidden)).view(*cut.shape[:3], channels, PATCH, PATCH)
        velocity: Tensor = x - x[:1] + spoken.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        return velocity

    def _places(self, frames: int, rows: int, columns: int, like: Tensor) -> Float[Tensor, "n y x d"]:
        """Waves that tell each token its place and time."""
        sizes: Sequence[tuple[int, tuple[int, ...]]] = (
            (frames, (-1, 1, 1)), (rows, (1, -1, 1)), (columns, (1, 1, -1)),
        )  # fmt: skip
        places = torch.zeros(frames, rows, columns, self.width, device=like.device)
        for count, shape in sizes:
            places = places + waves(torch.arange(count, device=like.device), self.width).view(*shape, self.width)
        return places.to(like.dtype)


class ToyAutoencoder(nn.Module):
    """Patches of four frames and eight by eight pixels, projected to a few channels, causal in time.

    A group's latents are its own projection and how far that lies ahead of the group before, so that a picture can be
    decoded only after all that come earlier, as with real causal autoencoders. Of a still clip all are alike.
    """

    STRIDE = 8
    FRAMES = 4

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.zeros(channels, 3 * self.FRAMES * self.STRIDE**2))

    @property
    def scale(self) -> float:
        """Length of one colour's patch of ones: divided by it, latents are as large as pixel values."""
        return math.sqrt(self.FRAMES) * self.STRIDE

    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "n c y x"]:
        """Latents of 4k + 1 frames with values in -1..1: the first frame's, then those of each group of four."""
        held = torch.cat([frames[:1].expand(self.FRAMES - 1, -1, -1, -1), frames])
        side = self.STRIDE
        cut = held.unflatten(3, (-1, side)).unflatten(2, (-1, side)).unflatten(0, (-1, self.FRAMES))
        patches = cut.permute(0, 3, 5, 2, 1, 4, 6).flatten(3)  # group, row, column, then colour, time and place
        own = patches @ self.basis.T / self.scale
        own = own.movedim(-1, 1)
        return torch.cat([own[:1], 2 * own[1:] - own[:-1]])

    def decode(self, latents: Float[Tensor, "n c y x"]) -> Float[Tensor, "f 3 h w"]:
        """The frames of all latent frames given, which begin with the first."""
        groups: list[Tensor] = []
        for latent in latents:
            groups.append((latent + groups[-1]) / 2 if groups else latent)
        own = torch.stack(groups).movedim(1, -1)
        side = self.STRIDE
        cut = (own @ self.basis * self.scale).unflatten(-1, (3, self.FRAMES, side, side))
        frames = cut.permute(0, 4, 3, 1, 5, 2, 6).flatten(5).flatten(3, 4).flatten(0, 1)
        shown: Tensor = frames[self.FRAMES - 1 :]
        return shown


def fresh_basis(channels: int, generator: torch.Generator) -> Float[Tensor, "c p"]:
    """Orthonormal rows: the mean of each colour, its slopes over time, down and to the right; then chance."""
    frames, side = ToyAutoencoder.FRAMES, ToyAutoencoder.STRIDE
    shape = (3, frames, side, side)
    ramps = [torch.ones(frames, side, side)]
    for axis, count in ((0, frames), (1, side), (2, side)):
        ramp = torch.linspace(-1, 1, count).view([-1 if k == axis else 1 for k in range(3)])
        ramps.append(ramp.expand(frames, side, side).clone())
    meant = [torch.eye(3)[c].view(3, 1, 1, 1) * ramp for ramp in ramps for c in range(3)]
    chance = torch.randn(max(channels - len(meant), 0), *shape, generator=generator)
    rows = torch.cat([torch.stack(meant), chance]).flatten(1)[:channels]
    q, r = torch.linalg.qr(rows.double().T)
    basis: Tensor = (q * r.diagonal().sign()).T.float().contiguous()
    return basis
