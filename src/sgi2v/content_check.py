"""An optional check of photo and clip for unsafe content, by a classifier of pictures that the person brings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.errors import FieldError
from sgi2v.lazy import torch

USUAL: Final = frozenset({"nsfw", "porn", "hentai", "sexy", "unsafe", "violence", "gore"})
"""Names of classes that are taken to be unsafe where the person names none."""
MOST_FRAMES: Final = 8
"""Frames of a clip that are looked at, evenly over it, its ends among them."""
_FIELD: Final = "content_check"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The worst that was seen."""

    label: str
    """Class of the picture that was worst."""
    probability: float
    """Of all unsafe classes together, 0..1."""


class ContentCheck:
    """A classifier of pictures (transformers' AutoModelForImageClassification) in a folder, weights as safetensors.

    It runs on the host's processor. Nothing is fetched, and no code of the folder runs.
    """

    def __init__(self, folder: Path, *, labels: Sequence[str] = (), limit: float = 0.5) -> None:
        """Read the folder. ``labels``: names of its unsafe classes, by default those of :data:`USUAL` that it has.

        limit: probability of unsafe classes, all together, from which on a picture is refused.
        Raises: FieldError for a folder that holds no such classifier, for unknown classes, and where it has none.
        """
        if not 0 < limit < 1:
            raise FieldError(f"{_FIELD}.limit", f"{limit} must lie between 0 and 1")
        self.limit = limit
        known, field = _labels(folder), f"{_FIELD}.labels"
        names = ", ".join(list(known.values())[:20])
        if unknown := [label for label in labels if label not in known.values()]:
            raise FieldError(field, f"{unknown[0]!r} is no class of it", f"there are {names}")
        chosen = set(labels) or {label for label in known.values() if label.lower() in USUAL}
        self._unsafe = {index: label for index, label in known.items() if label in chosen}
        if not self._unsafe:
            raise FieldError(field, f"{folder} names no class that is known to be unsafe", f"choose: {names}")
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        said: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quiet_libraries():
                self._processor = AutoImageProcessor.from_pretrained(folder, **said)
                self._model = AutoModelForImageClassification.from_pretrained(
                    folder, use_safetensors=True, **said
                ).eval()
        except (OSError, ValueError, KeyError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FieldError(
                _FIELD, f"{folder} holds no classifier of pictures ({line})", "see docs/provenance.md"
            ) from error

    def of(self, pictures: Iterable[Image.Image]) -> Verdict:
        """The verdict on pictures, each by itself; the worst counts."""
        worst = Verdict(label="", probability=-1.0)
        for picture in pictures:
            with torch.no_grad():
                logits = self._model(**self._processor(images=picture.convert("RGB"), return_tensors="pt")).logits[0]
            shares = logits.float().softmax(dim=0)
            seen = {label: float(shares[index]) for index, label in self._unsafe.items()}
            if (total := min(sum(seen.values()), 1.0)) > worst.probability:
                worst = Verdict(label=max(seen, key=lambda label: seen[label]), probability=total)
        return worst

    def check(self, what: str, pictures: Iterable[Image.Image]) -> str:
        """A sentence on the pictures; FieldError, naming `what` they are, where they are taken for unsafe."""
        found = self.of(pictures)
        said = f"{what}: unsafe with {found.probability:.2f} (mostly {found.label}), refused from {self.limit:g} on"
        if found.probability >= self.limit:
            raise FieldError(_FIELD, said, "nothing was written; look at it, or leave --content-check out")
        return said


def frames_to_check(pixels: np.ndarray) -> list[Image.Image]:
    """At most :data:`MOST_FRAMES` of a clip's frames, uint8 [frames, height, width, 3], evenly over it."""
    at = np.unique(np.linspace(0, len(pixels) - 1, MOST_FRAMES).round().astype(int))
    return [Image.fromarray(pixels[index]) for index in at]


def _labels(folder: Path) -> dict[int, str]:
    file = folder / "config.json"
    try:
        said = json.loads(file.read_text(encoding="utf-8"))["id2label"]
        return {int(index): str(label) for index, label in said.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FieldError(_FIELD, f"{file} names no classes of pictures", "give a classifier's folder") from error
