"""Checkpoints: refused where the settings differ, and packed into files that a training goes on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgi2v.training.checkpoint import (
    difference,
    load_checkpoint,
    pack,
    read_checkpoint,
    save_checkpoint,
)
from sgi2v.training.optimiser import MasterAdam


def trained(num_steps: int, optimiser: MasterAdam | None = None, first: int = 0) -> MasterAdam:
    """An optimiser after steps whose gradients depend on the step's number alone."""
    torch.manual_seed(0)
    optimiser = optimiser or MasterAdam(nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 3)), ema=0.9)
    for step in range(first, num_steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in optimiser.parameters:
            parameter.grad = parameter.detach() - torch.randn(parameter.shape, generator=generator)
        optimiser.step(0.01)
    return optimiser


def away(one: MasterAdam, other: MasterAdam) -> float:
    """Largest difference of two optimisers' weights."""
    return max(float((a - b).abs().max()) for a, b in zip(one.master, other.master, strict=True))


def test_a_checkpoint_of_another_network_or_of_nothing_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, MasterAdam(nn.Linear(3, 2)), 7)
    assert load_checkpoint(tmp_path, MasterAdam(nn.Linear(3, 2))) == 7
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(ValueError, match="another output folder"):
        load_checkpoint(tmp_path, MasterAdam(nn.Sequential(nn.Linear(3, 2))))
    (tmp_path / "newest.pt").write_bytes(b"PK no checkpoint")
    with pytest.raises(ValueError, match="delete it"):
        read_checkpoint(tmp_path)


def test_other_settings_are_refused_by_their_field(tmp_path: Path) -> None:
    def settings(lr: float) -> Mapping[str, Any]:
        return {"stages": ({"lr": 1.0}, {"lr": lr}), "folder": Path("a"), "seed": 3}

    save_checkpoint(tmp_path, trained(2), 2, lambda _: settings(0.5))
    assert load_checkpoint(tmp_path, trained(0), lambda _: settings(0.5)) == 2
    with pytest.raises(ValueError, match=r"stages\.1\.lr: .* was trained with 0.5, not 0.25"):
        load_checkpoint(tmp_path, trained(0), lambda _: settings(0.25))
    with pytest.raises(ValueError, match=r"seed: .* with 3, not None"):
        load_checkpoint(tmp_path, trained(0), lambda _: {**settings(0.5), "seed": None})
    assert difference({"a": [1, 2]}, {"a": [1]}) == ("a", [1, 2], [1])


def test_a_setting_is_known_by_its_former_name(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, trained(2), 2, lambda _: {"lanes": 2})
    assert load_checkpoint(tmp_path, trained(0), lambda _: {"accumulation": 2}) == 2
    with pytest.raises(ValueError, match=r"accumulation: .* was trained with 2, not 1"):
        load_checkpoint(tmp_path, trained(0), lambda _: {"accumulation": 1})


def test_packed_parts_are_small_and_gone_on_from(tmp_path: Path) -> None:
    whole = trained(8)
    save_checkpoint(tmp_path / "run", trained(5), 5, lambda _: {"seed": 3})
    plain, full = tmp_path / "plain", tmp_path / "full"
    pack(tmp_path / "run", plain, part_bytes=1000)
    names = pack(tmp_path / "run", plain, part_bytes=1000)  # the first call's files are replaced
    assert sorted(plain.iterdir()) == names and max(path.stat().st_size for path in names) == 1000
    pack(tmp_path / "run", full, moments=True, part_bytes=1000)
    with pytest.raises(ValueError, match=r"seed: .* with 3, not 4"):
        load_checkpoint(full, trained(0), lambda _: {"seed": 4})

    resumed = trained(0)
    assert load_checkpoint(full, resumed, lambda _: {"seed": 3}) == 5
    assert torch.allclose(flat(resumed.average), flat(trained(5).average), atol=1e-3)
    trained(8, resumed, first=5)
    assert 0 < away(resumed, whole) < 2e-3  # nearly what an uninterrupted run gives

    cold = trained(0)
    assert load_checkpoint(plain, cold) == 5
    assert torch.equal(flat(cold.master), flat(cold.average).half().float())
    before = flat(cold.master).clone()
    trained(6, cold, first=5)
    step = (flat(cold.master) - before).abs().max()
    assert 0 < step < 0.011 / 100 * 1.01  # the rate rises anew, from a hundredth
    # What is packed can be packed no more, but saved and gone on from, and stays cold for its hundred steps.
    save_checkpoint(plain, cold, 6)
    again = trained(0)
    assert load_checkpoint(plain, again) == 6 and again.cold_since == 5


def test_missing_and_damaged_parts_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", trained(2), 2)
    parts = pack(tmp_path / "run", tmp_path / "packed", part_bytes=1000)
    kept = parts[1].read_bytes()
    parts[1].write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(tmp_path / "packed")
    parts[1].unlink()
    with pytest.raises(ValueError, match=f"{len(parts) - 1} of its {len(parts)} parts"):
        read_checkpoint(tmp_path / "packed")
    with pytest.raises(ValueError, match="train first"):
        pack(tmp_path / "nothing", tmp_path / "packed")


def flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values])
