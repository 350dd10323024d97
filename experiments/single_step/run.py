"""Figures 10 and 15: one single optimised step."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, guided_steps, main
from sgi2v.backbones import Backbone
from sgi2v.controllers import Controller

MOST = 8


def variants(backbone: Backbone) -> Mapping[str, Controller]:
    base = base_of(backbone)
    num = backbone.settings.num_steps
    steps = sorted({round(1 + k * (num - 1) / (MOST - 1)) for k in range(MOST)}, reverse=True)
    alone = {f"{k}": replace(base, guided_as="step", guided=(float(k), float(k))) for k in steps}
    guided = guided_steps(backbone, base)
    return {f"all {guided[0]}-{guided[-1]}": base, **alone}


STUDY = Study(folder="single_step", axis="optimised step (steps to go)", variants=variants)

if __name__ == "__main__":
    main(STUDY)
