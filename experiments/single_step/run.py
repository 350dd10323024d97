"""Figures 10 and 15: one single optimised step."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, base_of, guided_steps, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller
from sgi2v.planning import Range

MOST = 8


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = base_of(outline)
    num = outline.settings.num_steps
    steps = sorted({round(1 + k * (num - 1) / (MOST - 1)) for k in range(MOST)}, reverse=True)
    guided = guided_steps(outline, base)

    def alone(step: int, iterations: int = base.iterations) -> Controller:
        return replace(base, guided=Range(low=float(step), high=float(step), unit="step"), iterations=iterations)

    # A range has more iterations than one of its steps, so each also has all of them.
    every = base.iterations * len(guided)
    at_once = {f"{step}, {every} iterations": alone(step, every) for step in guided if step in steps}
    return {f"all {guided[0]}-{guided[-1]}": base, **{f"{step}": alone(step) for step in steps}, **at_once}


STUDY = Study(folder="single_step", axis="optimised step (steps to go)", variants=variants)

if __name__ == "__main__":
    main(STUDY)
