"""What each way of making a guided run cheaper costs in control and quality."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from experiments.study import Study, base_of, main
from sgi2v.backbones import Backbone
from sgi2v.controllers import Controller

GUIDED = MappingProxyType({"min_guidance_scale": 1.0, "max_guidance_scale": 3.0})
SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "guidance 1 to 3": GUIDED,
        "guidance 1 to 3, s below 0.8": {**GUIDED, "guidance_interval": (0.0, 0.8)},
        "5 steps": {"num_steps": 5},
        "5 steps, 3 iterations, reuse": {"num_steps": 5},
    }
)


def variants(backbone: Backbone) -> Mapping[str, Controller]:
    """Around five iterations of the published step size, in the recipe's eight steps."""
    base = replace(base_of(backbone), iterations=5, lr=0.21)
    three = replace(base, iterations=3, lr=0.35)
    return {
        "5 iterations": base,
        "settled 0.08": replace(base, settled=0.08),
        "3 iterations": three,
        "reuse": replace(base, reuse_deep=True),
        "3 iterations, reuse": replace(three, reuse_deep=True),
        "half size": replace(base, shrink=2),
        "5 steps": base,
        "5 steps, 3 iterations, reuse": replace(three, reuse_deep=True),
        "guidance 1 to 3": base,
        "guidance 1 to 3, s below 0.8": base,
    }


STUDY = Study(folder="cheaper", axis="setting", variants=variants, settings=SETTINGS, default="5 iterations")

if __name__ == "__main__":
    main(STUDY)
