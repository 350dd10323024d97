"""What the frequency merge cuts away: watching a run changes nothing, and the shares are what they must be."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from sgi2v import SGI2V, SVD
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.pipeline import plan
from sgi2v.planning import Range
from sgi2v.sampling import sample
from tiny import load_svd, setup_of, tiny_svd

SCENE = HeldOutWorld(num_frames=4, limit=1)[0].scene
PLAIN = SGI2V(guided=Range(low=0.0, high=1000.0), iterations=1, layers=("up_blocks.1.attentions.0:first-frame",))


@pytest.fixture
def cut(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/gamma/cut.py."""
    return experiment("gamma.cut")


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(4, light=True), device="cpu", dtype="float32")


def sampled(backbone: SVD, controller: SGI2V) -> torch.Tensor:
    small = backbone.with_settings(replace(backbone.settings, width=64, height=64, num_frames=4))
    planned = plan(SCENE, small.outline, controller=controller)
    setup = setup_of(small, planned.tracks, planned.grid, num_steps=2, seed=1)
    return sample(controller, setup, noise=small.noise(planned.grid, setup.generator))


@pytest.mark.parametrize(("cutoff", "wanted"), [(0.0, 1.0), (0.5, None), (1000.0, 0.0)])
def test_watching_changes_nothing_and_counts_what_is_cut(
    cut: ModuleType, backbone: SVD, cutoff: float, wanted: float | None
) -> None:
    plain = replace(PLAIN, cutoff=cutoff)
    watched = cut.Watched(**vars(plain))
    # Up to rounding: what is not cut at first goes through one more transform.
    torch.testing.assert_close(sampled(backbone, watched), sampled(backbone, plain), rtol=1e-3, atol=1e-3)
    assert len(watched.updates) == len(watched.effects) == 2
    for found in (watched.updates, watched.effects):
        for (one,) in found.values():
            share = one.cut / one.whole
            assert 0 < share < 1 if wanted is None else share == pytest.approx(wanted, abs=1e-5)
