"""Figure 16: the range of optimised steps."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, guided_steps, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller
from sgi2v.planning import Range


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = base_of(outline)
    guided = guided_steps(outline, base)
    first, last, num = guided[0], guided[-1], outline.settings.num_steps
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
        f"{high}-{low}": replace(base, guided=Range(low=float(low), high=float(high), unit="step"))
        for high, low in ranges
        if high >= low
    }


STUDY = Study(folder="range_of_steps", axis="optimised steps (first-last, steps to go)", variants=variants)

if __name__ == "__main__":
    main(STUDY)
