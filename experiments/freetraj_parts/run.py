"""Parts of FreeTraj by themselves: the noise along the path, its merge, and the attention edits."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.study import Study, main
from sgi2v.backbones import Outline
from sgi2v.controllers import Controller, FreeTraj, recommended


def variants(outline: Outline) -> Mapping[str, Controller]:
    base = recommended("freetraj", outline.settings.recommended)
    assert isinstance(base, FreeTraj)
    noise = replace(base, edit_spatial=False, edit_temporal=False)
    return {
        "all parts": base,
        "attention edits alone": replace(base, inject_noise=False),
        "noise alone": noise,
        "noise alone, not merged": replace(noise, merge_noise=False),
    }


STUDY = Study(folder="freetraj_parts", axis="parts of FreeTraj", variants=variants, method="FreeTraj")

if __name__ == "__main__":
    main(STUDY)
