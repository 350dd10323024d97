"""Several batches a step: their mean gradient, the same bits side by side and in turn, and resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sgi2v.training import autoencoder, denoiser
from sgi2v.training.accumulation import Learned, give_mean, replica, side_by_side, training_of
from sgi2v.training.autoencoder_fields import AutoencoderTraining
from sgi2v.training.checkpoint import Stopped
from sgi2v.training.stages import DenoiserTraining, Stage


@pytest.fixture
def training(tmp_path: Path) -> DenoiserTraining:
    """Two micro-batches of one clip of three frames, four steps."""
    vae = tmp_path / "vae"
    small = AutoencoderTraining(output=vae, size=32, channels=(32, 32, 32, 32), latent_channels=4)
    autoencoder.build(small).save_pretrained(vae)
    return DenoiserTraining(
        output=tmp_path / "whole",
        autoencoder=vae,
        stages=(Stage(num_frames=3, batch_size=1, width=64, height=64, num_steps=4, num_warmup=1),),
        channels=(32, 32, 32, 32),
        embedding=32,
        num_frames=3,
        correspondence=0.1,
        pool_steps=2,
        accumulation=2,
        dtype="float32",
    )


def _weights(models: nn.ModuleDict) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in models.state_dict().items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def _learned(*gradients: Tensor | None) -> Learned:
    return Learned(gradients=gradients, losses=torch.zeros(1), sigma=torch.ones(1), missed=None)


def test_parameters_get_the_mean_and_silence_counts_as_zero() -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    one, three = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    give_mean(parameters, [_learned(one, None, None), _learned(three, three, None)])
    assert parameters[0].grad is not None and parameters[0].grad.tolist() == [2.0, 0.0]
    assert parameters[1].grad is not None and parameters[1].grad.tolist() == [1.5, -1.0]
    assert parameters[2].grad is None


def test_a_replica_has_the_parameters_and_hooks_of_its_own() -> None:
    models = nn.ModuleDict({"unet": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))})
    other = replica(models)
    assert [id(p) for p in other.parameters()] == [id(p) for p in models.parameters()]
    seen: list[str] = []
    models["unet"].register_forward_hook(lambda *_: seen.append("first"))
    other["unet"](torch.zeros(2))
    assert not seen


def test_micro_batches_come_in_their_order_and_with_their_share_of_threads() -> None:
    before = torch.get_num_threads()
    num: dict[int, int] = {}

    def learn_one(number: int, step: int) -> Learned:
        num[number] = torch.get_num_threads()
        return _learned(torch.tensor([float(10 * number + step)]))

    micro_batches = [lambda step, number=number: learn_one(number, step) for number in range(3)]
    with side_by_side(micro_batches, "cpu") as learn:
        found = learn(4)
    assert [float(one.gradients[0]) for one in found if one.gradients[0] is not None] == [4.0, 14.0, 24.0]
    assert set(num.values()) == {max(1, before // 3)}
    assert torch.get_num_threads() == before


def test_a_micro_batch_that_fails_is_heard() -> None:
    def broken(_: int) -> Learned:
        raise ValueError("no clips")

    with pytest.raises(ValueError, match="no clips"), side_by_side([broken, broken], "cpu") as learn:
        learn(0)


def test_micro_batches_see_clips_of_their_own_and_the_first_those_of_a_training_without(
    training: DenoiserTraining,
) -> None:
    seeds = [training_of(training, number).seed for number in range(4)]
    assert seeds[0] == training.seed
    assert len(set(seeds)) == 4


@pytest.mark.long
def test_side_by_side_is_in_turn_to_the_bit_and_goes_on_where_it_stopped(
    training: DenoiserTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _weights(denoiser.train(training))
    parts = replace(training, output=tmp_path / "parts")
    with pytest.raises(Stopped):
        denoiser.train(parts, stop=lambda: True)
    assert _equal(_weights(denoiser.train(parts)), whole)
    one = _weights(denoiser.train(replace(training, output=tmp_path / "one", accumulation=1)))
    assert not _equal(one, whole)
    # As on a device that micro-batches would share.
    monkeypatch.setattr(denoiser, "side_by_side", lambda all_of_them, _: side_by_side(all_of_them, "meta"))
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // 2))  # what one has beside another
    try:
        turns = _weights(denoiser.train(replace(training, output=tmp_path / "turns")))
    finally:
        torch.set_num_threads(before)
    assert _equal(turns, whole)


def test_no_micro_batch_is_refused(training: DenoiserTraining) -> None:
    with pytest.raises(ValueError, match="accumulation: must be at least 1, not 0"):
        replace(training, accumulation=0)
