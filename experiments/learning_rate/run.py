"""Figure 9: the optimiser's step size."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = base_of(outline)
    return {f"{base.lr * factor:.3g}": replace(base, lr=base.lr * factor) for factor in FACTORS}


STUDY = Study(folder="learning_rate", axis="step size (in units of the latents)", variants=variants, numeric=True)

if __name__ == "__main__":
    main(STUDY)
