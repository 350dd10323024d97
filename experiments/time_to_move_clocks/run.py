"""Time-to-Move's two clocks: where it begins, and how long things are held to the crude clip."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller, TimeToMove, recommended

SIGMAS = ((12.0, 0.4), (12.0, 0.05), (3.0, 0.4), (3.0, 0.05), (1.2, 0.05))


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = recommended("time-to-move", outline.settings.recommended)
    assert isinstance(base, TimeToMove)
    found = {f"{base.t_weak:g} / {base.t_strong:g}": base}
    found |= {f"{first:g} / {last:g}": replace(base, t_weak=first, t_strong=last) for first, last in SIGMAS}
    return {**found, f"{base.t_weak:g} / never held": replace(base, t_strong=None)}


STUDY = Study(
    folder="time_to_move_clocks",
    axis="begins at / held down to, sigma",
    variants=variants,
    method="Time-to-Move",
    note="The steps' sigmas are 40, 15.6, 5.2, 1.4, 0.29, 0.037 and 0.002.",
)

if __name__ == "__main__":
    main(STUDY)
