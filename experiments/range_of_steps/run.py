"""Figure 16: the range of optimised steps."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, guided_steps, main
from sgi2v.backbones import Backbone
from sgi2v.controllers import Controller


def variants(backbone: Backbone) -> Mapping[str, Controller]:
    base = base_of(backbone)
    guided = guided_steps(backbone, base)
    first, last, num = guided[0], guided[-1], backbone.settings.num_steps
    middle = (first + last + 1) // 2
    ranges = dict.fromkeys(
        [
            (first, last),
            (first, middle),
            (middle - 1, last),
            (first, max(1, last - 2)),
            (first, 1),
            (num, last),
            (num, first),
        ]
    )
    return {
        f"{high}-{low}": replace(base, guided_as="step", guided=(float(low), float(high)))
        for high, low in ranges
        if high >= low
    }


STUDY = Study(folder="range_of_steps", axis="optimised steps (first-last, steps to go)", variants=variants)

if __name__ == "__main__":
    main(STUDY)
