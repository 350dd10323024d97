"""LPIPS on random weights in the published layouts, against a literal twin; what it refuses."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from sgi2v.evaluation.lpips import load_lpips
from sgi2v.evaluation.weights import read_weights

State = dict[str, Tensor]
CHANNELS = (64, 192, 384, 256, 256)
KERNELS = {"0": (3, 11), "3": (64, 5), "6": (192, 3), "8": (384, 3), "10": (256, 3)}


def heads() -> State:
    """As the published file of heads names them; weights are not negative there."""
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{number}.model.1.weight": torch.rand(1, num, 1, 1, generator=generator)
        for number, num in enumerate(CHANNELS)
    }


def alexnet() -> State:
    """As torchvision names them, with a classifier that is not needed."""
    generator = torch.Generator().manual_seed(2)
    state = {"classifier.6.bias": torch.zeros(1000)}
    for (place, (given, side)), num in zip(KERNELS.items(), CHANNELS, strict=True):
        draw = torch.randn(num, given, side, side, generator=generator)
        state[f"features.{place}.weight"] = draw * (2 / draw[0].numel()) ** 0.5
        state[f"features.{place}.bias"] = 0.1 * torch.randn(num, generator=generator)
    return state


def whole() -> State:
    """As the network of the authors' package saves itself: slices, heads twice, the scaling."""
    state = heads() | {f"lins.{name[3]}{name[4:]}": value for name, value in heads().items()}
    for number, place in enumerate(KERNELS, start=1):
        for part in ("weight", "bias"):
            state[f"net.slice{number}.{place}.{part}"] = alexnet()[f"features.{place}.{part}"]
    return state | {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}


def literal(a: Tensor, b: Tensor) -> list[float]:
    """The distance of the paper, its layers one by one."""
    state, weights = alexnet(), list(heads().values())
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def maps(x: Tensor) -> list[Tensor]:
        x = ((2 * x - 1) - shift[:, None, None]) / scale[:, None, None]
        one = functional.conv2d(x, state["features.0.weight"], state["features.0.bias"], 4, 2).clamp(min=0)
        x = functional.max_pool2d(one, 3, 2)
        two = functional.conv2d(x, state["features.3.weight"], state["features.3.bias"], 1, 2).clamp(min=0)
        found = [one, two]
        x = functional.max_pool2d(two, 3, 2)
        for place in ("6", "8", "10"):
            x = functional.conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], 1, 1)
            x = x.clamp(min=0)
            found.append(x)
        return found

    distances = []
    for one, two in zip(a, b, strict=True):
        total = 0.0
        for head, x, y in zip(weights, maps(one[None]), maps(two[None]), strict=True):
            x, y = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (x, y))
            total += float(((x - y) ** 2 * head).sum(1).mean())
        distances.append(total)
    return distances


def test_equals_its_literal_twin_from_one_file_and_from_two(tmp_path: Path) -> None:
    save_file(whole(), tmp_path / "whole.safetensors")
    torch.save(heads(), tmp_path / "alex.pth")
    torch.save(alexnet(), tmp_path / "alexnet.pth")
    a, b = torch.rand(2, 2, 3, 40, 64).unbind(0)
    one = load_lpips(tmp_path / "whole.safetensors")
    two = load_lpips(tmp_path / "alex.pth", tmp_path / "alexnet.pth")
    assert one.distances(a, b).tolist() == pytest.approx(literal(a, b), rel=1e-4)
    assert torch.equal(one.distances(a, b), two.distances(a, b))
    assert float(one.distances(a, a).abs().max()) < 1e-6
    assert len(one.sha256) == 1 and len(set(two.sha256)) == 2


def test_the_published_heads_have_the_layout_that_is_read() -> None:
    spec = find_spec("torchmetrics")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    if not file.exists():
        pytest.skip("this torchmetrics brings no file of LPIPS's heads")
    found = {name: value.shape for name, value in read_weights(file).tensors.items()}
    assert found == {name: value.shape for name, value in heads().items()}


def test_what_is_no_lpips_is_refused_by_name(tmp_path: Path) -> None:
    save_file(heads(), tmp_path / "alex.safetensors")
    with pytest.raises(ValueError, match=r"alex\.safetensors: holds LPIPS's heads alone; give AlexNet"):
        load_lpips(tmp_path / "alex.safetensors")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors.*missing, first features\.0\.weight"):
        load_lpips(tmp_path / "alex.safetensors", tmp_path / "other.safetensors")
    save_file(whole(), tmp_path / "whole.safetensors")
    lpips = load_lpips(tmp_path / "whole.safetensors")
    assert lpips.distances(torch.rand(1, 3, 31, 31), torch.rand(1, 3, 31, 31)).shape == (1,)
    with pytest.raises(ValueError, match="too small for LPIPS"):
        lpips.distances(torch.rand(1, 3, 30, 40), torch.rand(1, 3, 30, 40))
