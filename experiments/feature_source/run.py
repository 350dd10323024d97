"""Figures 5 and 13: where the loss reads its features."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller

SOURCES = ("first-frame", "self", "temporal")


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = base_of(outline)
    blocks = [layer.partition(":")[0] for layer in base.layers]
    found: dict[str, Controller] = {
        f"{source} attention": replace(base, layers=tuple(f"{block}:{source}" for block in blocks))
        for source in SOURCES
    }
    levels = dict.fromkeys(".".join(block.split(".")[:2]) for block in blocks)
    found["up-block output"] = replace(base, layers=tuple(f"{level}:output" for level in levels))
    return found


STUDY = Study(folder="feature_source", axis="features", variants=variants)

if __name__ == "__main__":
    main(STUDY)
