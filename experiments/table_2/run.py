"""Table 2: the Gaussian weight on a box, on and off."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = base_of(outline)
    return {"gaussian": base, "uniform": replace(base, weighting="uniform")}


STUDY = Study(folder="table_2", axis="weight of a box's cells", variants=variants)

if __name__ == "__main__":
    main(STUDY)
