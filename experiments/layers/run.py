"""Figures 6 and 14: which up-block's attention layers are aligned, bottom, middle or top."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import PUBLISHED, Study, base_of, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller

LEVELS = {"B": 1, "M": 2, "T": 3}


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = base_of(outline)
    found: dict[str, Controller] = {"recommended": base, "M2 + M3": replace(base, layers=PUBLISHED)}
    for letter, level in LEVELS.items():
        for index in range(3):
            layer = f"up_blocks.{level}.attentions.{index}:first-frame"
            found[f"{letter}{index + 1}"] = replace(base, layers=(layer,))
    for letter, level in LEVELS.items():
        pair = tuple(f"up_blocks.{level}.attentions.{index}:first-frame" for index in (1, 2))
        if letter != "M":
            found[f"{letter}2 + {letter}3"] = replace(base, layers=pair)
    return found


STUDY = Study(
    folder="layers",
    axis="layers",
    variants=variants,
    default="recommended",
    note="B, M, T: the up-blocks at a quarter, half and the full resolution of the latents; 1 to 3: their layers in order.",
)

if __name__ == "__main__":
    main(STUDY)
