"""Figures 7 and 8: the share of frequencies that is taken from the optimised latents."""

from dataclasses import replace

from experiments.study import Study, base_of, main

CUTOFFS = (0.0, 0.25, 0.5, 0.75, 1.0)

STUDY = Study(
    folder="gamma",
    axis="γ (share of Nyquist)",
    variants=lambda outline: {f"{value:g}": replace(base_of(outline), cutoff=value) for value in CUTOFFS},
    numeric=True,
    default="0.5",
)

if __name__ == "__main__":
    main(STUDY)
