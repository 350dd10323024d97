"""Networks that turn frames or clips into features whose distributions can be compared: their common interface."""

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Extractor(Protocol):
    """Anything that describes the frames of a clip, or the clip as a whole, by features."""

    name: str
    """Which network: a figure made with another one is another figure."""
    sha256: str
    """SHA-256 of the file its weights were read from, in hexadecimal digits."""
    unit: Literal["frame", "clip"]
    """What a row of features stands for."""

    def features(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of a clip's frames, RGB in 0..1: a row per frame, or one row for the clip."""
        ...
