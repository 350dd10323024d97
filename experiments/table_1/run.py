"""Table 1: every way of steering that the project has, on the same scenes."""

from collections.abc import Mapping

from experiments.study import Study, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller, recommended

NAMES = ("sg-i2v", "freetraj", "drag-diffusion", "time-to-move", "time-to-move+sg-i2v", "freetraj+sg-i2v")
ABSENT = "DragNUWA, DragAnything and Image Conductor (trained) were not run for want of their weights: their rows are absent."


def variants(outline: Outline) -> Mapping[str, Controller]:
    return {name: recommended(name, outline.settings.recommended) for name in NAMES}


STUDY = Study(
    folder="table_1", axis="method", variants=variants, extra=("reconstructed", "paste"), note=ABSENT, costs=True
)

if __name__ == "__main__":
    main(STUDY)
