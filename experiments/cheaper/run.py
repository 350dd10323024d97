"""Costs in control and quality of each way to make a guided run cheaper."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from experiments.study import Study, base_of, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller

GUIDED = MappingProxyType({"min_guidance_scale": 1.0, "max_guidance_scale": 3.0})
SETTINGS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "guidance 1 to 3": GUIDED,
        "guidance 1 to 3, s below 0.8": {**GUIDED, "guidance_interval": (0.0, 0.8)},
        "5 steps": {"num_steps": 5},
    }
)


def variants(outline: Outline) -> Mapping[str, Controller]:
    """Around what is recommended, and around five iterations of the published step size."""
    base = base_of(outline)
    five = replace(base, iterations=5, lr=0.21)
    return {
        "recommended": base,
        "reuse": replace(base, reuse_deep=True),
        "1 iteration, twice the step": replace(base, iterations=1, lr=2 * base.lr),
        "half size": replace(base, shrink=2),
        "5 steps": base,
        "5 iterations, 0.21": five,
        "5 iterations, 0.21, settled 0.08": replace(five, settled=0.08),
        "guidance 1 to 3": base,
        "guidance 1 to 3, s below 0.8": base,
    }


STUDY = Study(folder="cheaper", axis="setting", variants=variants, settings=SETTINGS, default="recommended")

if __name__ == "__main__":
    main(STUDY)
