"""What the server asks about models and methods; asking needs no torch, only answering does."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from sgi2v.scene import Scene


@runtime_checkable
class Engine(Protocol):
    """What the server asks about models."""

    def info(self, recipe: str | None = None) -> dict[str, Any]:
        """Models with their methods and all fields; defaults as a recipe has them, where a model knows it."""
        ...

    def plan(self, request: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
        """What a job with this request would do, complete; ValueError for what cannot be done."""
        ...

    def read_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Scene JSON and settings of a run's record; ValueError when it is damaged."""
        ...
