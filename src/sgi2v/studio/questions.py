"""Questions of the server about models and methods; asking needs no torch, only answering does."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from sgi2v.records import Json
from sgi2v.scene import Scene


@runtime_checkable
class Engine(Protocol):
    """Answers the server's questions about models."""

    def info(self, recipe: str | None = None) -> Json:
        """Models with their methods and all fields; defaults as a recipe has them, where a model knows it."""

    def plan(self, request: Mapping[str, object], scene: Scene) -> Json:
        """The whole plan of a job with this request; ValueError for what cannot be done."""

    def read_record(self, record: Mapping[str, object]) -> Json:
        """Scene JSON and settings of a run's record; ValueError when it is damaged."""
