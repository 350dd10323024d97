"""A pass through the shallow levels of a U-Net alone, with the deep ones' known output in their place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from sgi2v.backbones.swapping import Swap, swapped
from sgi2v.errors import FieldError


class Bypass(nn.Module):
    """In a block's place: hands on what it is given, or puts out one known tensor."""

    def __init__(self, block: Any, known: Tensor | None = None) -> None:
        super().__init__()
        self.resnets = range(len(block.resnets))  # the network takes one skip for each of them off its pile
        self._known = known

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """The tensor that is known, or the one given."""
        return hidden_states if self._known is None else self._known


class DownBypass(Bypass):
    """In a down block's place: has as many skips to give, which only other bypasses take."""

    def __init__(self, block: Any) -> None:
        super().__init__(block)
        self._num_skips = len(block.resnets) + len(block.downsamplers or ())

    def forward(self, hidden_states: Tensor, **_: Any) -> Any:
        """The input itself, and skips."""
        return hidden_states, (hidden_states,) * self._num_skips


def last_deep_block(unet: nn.Module, names: Sequence[str]) -> str:
    """The block behind which a pass that only has to reach the named modules is shallow: an up block.

    The deep part is that block, everything between it and the down blocks that have no skip to a later one, and those.
    Raises FieldError where nothing is deeper than the named modules.
    """
    first = min((_up_block(name) for name in names), default=0)
    if first == 0:
        raise FieldError(
            "reuse_deep",
            "nothing lies deeper than these layers",
            f"name layers of up_blocks.1 or later ones, got {', '.join(names)}",
        )
    return f"up_blocks.{first - 1}"


def _up_block(name: str) -> int:
    kind, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if kind == "up_blocks" else 0


@contextmanager
def without_deep(unet: Any, last: str, known: Tensor) -> Iterator[None]:
    """While open, the U-Net's blocks up to ``last`` (an up block) and their down blocks put out ``known`` at once.

    ``known`` is what ``last`` put out in another pass, and a constant. The idea of reusing deep features is DeepCache's
    (arXiv 2312.00858), between steps. Whatever happens inside, the network is afterwards what it was; gradients may be
    taken outside, with checkpointing too, since no block that runs is changed.
    """
    num_deep = _up_block(last) + 1
    down, up = unet.down_blocks, unet.up_blocks
    places: list[Swap] = [(down, str(k), DownBypass(down[k])) for k in range(len(down) - num_deep, len(down))]
    places.append((unet, "mid_block", Bypass(unet.mid_block)))
    places += [(up, str(k), Bypass(up[k], known if k == num_deep - 1 else None)) for k in range(num_deep)]
    with swapped(places):
        yield
