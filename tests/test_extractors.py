"""The measuring networks on random weights in the published layouts, against literal twins; files that are refused."""

import functools
import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.evaluation.extractors import Extractor, load_i3d, load_inception
from sgi2v.evaluation.i3d import I3D
from sgi2v.evaluation.inception import Inception
from sgi2v.evaluation.weights import load_strictly, read_weights

State = dict[str, Tensor]


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random weights under given names: scaled so that signals neither die nor blow up, variances positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        draw = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[name] = draw * (2 / draw[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = 0.7 + 0.6 * torch.rand(shape, generator=generator)
        else:
            state[name] = 0.1 * draw + float(name.endswith("bn.weight"))
    return state


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of the FID port's file, written down apart from the network."""
    table = """Conv2d_1a_3x3 32 3 3 3; Conv2d_2a_3x3 32 32 3 3; Conv2d_2b_3x3 64 32 3 3; Conv2d_3b_1x1 80 64 1 1;
    Conv2d_4a_3x3 192 80 3 3"""
    rows = [row.split() for row in table.split(";")]
    for block, given, last in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        for row in (
            f"branch1x1 64 {given} 1 1; branch5x5_1 48 {given} 1 1; branch5x5_2 64 48 5 5;"
            f"branch3x3dbl_1 64 {given} 1 1; branch3x3dbl_2 96 64 3 3; branch3x3dbl_3 96 96 3 3;"
            f"branch_pool {last} {given} 1 1"
        ).split(";"):
            rows.append([f"{block}.{row.split()[0]}", *row.split()[1:]])
    for row in (
        "branch3x3 384 288 3 3; branch3x3dbl_1 64 288 1 1; branch3x3dbl_2 96 64 3 3; branch3x3dbl_3 96 96 3 3"
    ).split(";"):
        rows.append([f"Mixed_6a.{row.split()[0]}", *row.split()[1:]])
    for block, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        for row in (
            f"branch1x1 192 768 1 1; branch7x7_1 {inner} 768 1 1; branch7x7_2 {inner} {inner} 1 7;"
            f"branch7x7_3 192 {inner} 7 1; branch7x7dbl_1 {inner} 768 1 1; branch7x7dbl_2 {inner} {inner} 7 1;"
            f"branch7x7dbl_3 {inner} {inner} 1 7; branch7x7dbl_4 {inner} {inner} 7 1;"
            f"branch7x7dbl_5 192 {inner} 1 7; branch_pool 192 768 1 1"
        ).split(";"):
            rows.append([f"{block}.{row.split()[0]}", *row.split()[1:]])
    for row in (
        "branch3x3_1 192 768 1 1; branch3x3_2 320 192 3 3; branch7x7x3_1 192 768 1 1; branch7x7x3_2 192 192 1 7;"
        "branch7x7x3_3 192 192 7 1; branch7x7x3_4 192 192 3 3"
    ).split(";"):
        rows.append([f"Mixed_7a.{row.split()[0]}", *row.split()[1:]])
    for block, given in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
        for row in (
            f"branch1x1 320 {given} 1 1; branch3x3_1 384 {given} 1 1; branch3x3_2a 384 384 1 3;"
            f"branch3x3_2b 384 384 3 1; branch3x3dbl_1 448 {given} 1 1; branch3x3dbl_2 384 448 3 3;"
            f"branch3x3dbl_3a 384 384 1 3; branch3x3dbl_3b 384 384 3 1; branch_pool 192 {given} 1 1"
        ).split(";"):
            rows.append([f"{block}.{row.split()[0]}", *row.split()[1:]])
    shapes: dict[str, tuple[int, ...]] = {}
    for name, *shape in rows:
        channels = int(shape[0])
        shapes[f"{name}.conv.weight"] = tuple(int(length) for length in shape)
        shapes |= {f"{name}.bn.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


def layer(state: State, name: str, x: Tensor, *, stride: int = 1, pad: tuple[int, int] | int = 0) -> Tensor:
    """Convolution, normalisation by stored statistics written out, ReLU."""
    x = functional.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=pad)
    parts = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (state[f"{name}.bn.{part}"].view(1, -1, 1, 1) for part in parts)
    return ((x - mean) / (variance + 0.001).sqrt() * scale + shift).clamp(min=0)


def literal_inception(state: State, frames: Tensor) -> Tensor:
    """The network from the first layer to the last, line by line."""
    x = layer(state, "Conv2d_1a_3x3", frames, stride=2)
    x = layer(state, "Conv2d_2a_3x3", x)
    x = layer(state, "Conv2d_2b_3x3", x, pad=1)
    x = functional.max_pool2d(x, 3, 2)
    x = layer(state, "Conv2d_3b_1x1", x)
    x = layer(state, "Conv2d_4a_3x3", x)
    x = functional.max_pool2d(x, 3, 2)

    def mean_of_nine(y: Tensor) -> Tensor:
        ones = functional.avg_pool2d(torch.ones_like(y[:1, :1]), 3, 1, 1)
        return functional.avg_pool2d(y, 3, 1, 1) / ones

    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        one = functools.partial(layer, state)
        five = one(f"{block}.branch5x5_2", one(f"{block}.branch5x5_1", x), pad=2)
        double = one(f"{block}.branch3x3dbl_2", one(f"{block}.branch3x3dbl_1", x), pad=1)
        double = one(f"{block}.branch3x3dbl_3", double, pad=1)
        last = one(f"{block}.branch_pool", mean_of_nine(x))
        x = torch.cat([one(f"{block}.branch1x1", x), five, double, last], 1)
    double = layer(state, "Mixed_6a.branch3x3dbl_2", layer(state, "Mixed_6a.branch3x3dbl_1", x), pad=1)
    double = layer(state, "Mixed_6a.branch3x3dbl_3", double, stride=2)
    three = layer(state, "Mixed_6a.branch3x3", x, stride=2)
    x = torch.cat([three, double, functional.max_pool2d(x, 3, 2)], 1)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = layer(state, f"{block}.branch7x7_1", x)
        seven = layer(state, f"{block}.branch7x7_2", seven, pad=(0, 3))
        seven = layer(state, f"{block}.branch7x7_3", seven, pad=(3, 0))
        double = layer(state, f"{block}.branch7x7dbl_1", x)
        for number, pad in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            double = layer(state, f"{block}.branch7x7dbl_{number}", double, pad=pad)
        last = layer(state, f"{block}.branch_pool", mean_of_nine(x))
        x = torch.cat([layer(state, f"{block}.branch1x1", x), seven, double, last], 1)
    three = layer(state, "Mixed_7a.branch3x3_2", layer(state, "Mixed_7a.branch3x3_1", x), stride=2)
    seven = layer(state, "Mixed_7a.branch7x7x3_1", x)
    seven = layer(state, "Mixed_7a.branch7x7x3_2", seven, pad=(0, 3))
    seven = layer(state, "Mixed_7a.branch7x7x3_3", seven, pad=(3, 0))
    seven = layer(state, "Mixed_7a.branch7x7x3_4", seven, stride=2)
    x = torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)
    for block in ("Mixed_7b", "Mixed_7c"):
        three = layer(state, f"{block}.branch3x3_1", x)
        double = layer(state, f"{block}.branch3x3dbl_2", layer(state, f"{block}.branch3x3dbl_1", x), pad=1)
        parts = [
            layer(state, f"{block}.branch1x1", x),
            layer(state, f"{block}.branch3x3_2a", three, pad=(0, 1)),
            layer(state, f"{block}.branch3x3_2b", three, pad=(1, 0)),
            layer(state, f"{block}.branch3x3dbl_3a", double, pad=(0, 1)),
            layer(state, f"{block}.branch3x3dbl_3b", double, pad=(1, 0)),
        ]
        smooth = mean_of_nine(x) if block == "Mixed_7b" else functional.max_pool2d(x, 3, 1, 1)
        x = torch.cat([*parts, layer(state, f"{block}.branch_pool", smooth)], 1)
    return x.mean((2, 3))


def i3d_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of the I3D port's file, written down apart from the network."""
    layers = [("Conv3d_1a_7x7", 64, 3, 7), ("Conv3d_2b_1x1", 64, 64, 1), ("Conv3d_2c_3x3", 192, 64, 3)]
    table = """3b 192 64 96 128 16 32 32; 3c 256 128 128 192 32 96 64; 4b 480 192 96 208 16 48 64;
    4c 512 160 112 224 24 64 64; 4d 512 128 128 256 24 64 64; 4e 512 112 144 288 32 64 64;
    4f 528 256 160 320 32 128 128; 5b 832 256 160 320 32 128 128; 5c 832 384 192 384 48 128 128"""
    for row in table.split(";"):
        block, *numbers = row.split()
        given, single, reduced, wide, narrow, thin, last = map(int, numbers)
        layers += [
            (f"Mixed_{block}.b0", single, given, 1),
            (f"Mixed_{block}.b1a", reduced, given, 1),
            (f"Mixed_{block}.b1b", wide, reduced, 3),
            (f"Mixed_{block}.b2a", narrow, given, 1),
            (f"Mixed_{block}.b2b", thin, narrow, 3),
            (f"Mixed_{block}.b3b", last, given, 1),
        ]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, channels, given, side in layers:
        shapes[f"{name}.conv3d.weight"] = (channels, given, side, side, side)
        shapes |= {f"{name}.bn.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {"logits.conv3d.weight": (400, 1024, 1, 1, 1), "logits.conv3d.bias": (400,)}


def same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's SAME padding: as many outputs as ceil(size / stride), the odd zero behind."""
    pads = []
    for size, reach, step in zip(x.shape[2:], kernel, stride, strict=True):
        outputs = -(-size // step)
        total = max((outputs - 1) * step + reach - size, 0)
        pads.append((total // 2, total - total // 2))
    (t0, t1), (h0, h1), (w0, w1) = pads
    return functional.pad(x, (w0, w1, h0, h1, t0, t1))


def literal_i3d(state: State, clip: Tensor) -> Tensor:
    """The network from the first layer to the last, line by line."""

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        side = weight.shape[-1]
        x = functional.conv3d(same(x, (side, side, side), (stride, stride, stride)), weight, stride=stride)
        parts = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (state[f"{name}.bn.{part}"].view(1, -1, 1, 1, 1) for part in parts)
        return ((x - mean) / (variance + 0.001).sqrt() * scale + shift).clamp(min=0)

    def largest(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return functional.max_pool3d(same(x, kernel, stride), kernel, stride)

    x = largest(unit("Conv3d_1a_7x7", clip, 2), (1, 3, 3), (1, 2, 2))
    x = largest(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
    for block in ("3b", "3c", "", "4b", "4c", "4d", "4e", "4f", "-", "5b", "5c"):
        if not block:
            x = largest(x, (3, 3, 3), (2, 2, 2))
        elif block == "-":
            x = largest(x, (2, 2, 2), (2, 2, 2))
        else:
            name = f"Mixed_{block}"
            x = torch.cat(
                [
                    unit(f"{name}.b0", x),
                    unit(f"{name}.b1b", unit(f"{name}.b1a", x)),
                    unit(f"{name}.b2b", unit(f"{name}.b2a", x)),
                    unit(f"{name}.b3b", largest(x, (3, 3, 3), (1, 1, 1))),
                ],
                1,
            )
    x = functional.avg_pool3d(x, (2, 7, 7), 1)
    x = functional.conv3d(x, state["logits.conv3d.weight"], state["logits.conv3d.bias"])
    return x.mean((2, 3, 4))


def test_inception_has_the_published_layout_and_size() -> None:
    with torch.device("meta"):
        network = Inception()
    own = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert own == inception_shapes()
    # Keras' InceptionV3 has 23,817,352 trainable parameters with 1000 classes and no batch-norm scales; the port has
    # 17,216 of these and 8 classes more.
    assert sum(value.numel() for value in network.parameters()) == 23_817_352 + 17_216 + 8 * 2049


def test_i3d_has_the_published_layout_and_size() -> None:
    with torch.device("meta"):
        network = I3D()
    own = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert own == i3d_shapes()
    # The paper's Table 1 gives 25 million for the two streams; the stream of flow has two channels in, not three.
    num = sum(value.numel() for value in network.parameters())
    assert round((2 * num - 64 * 7**3) / 1e6) == 25


@pytest.mark.long
def test_inception_equals_its_literal_twin(tmp_path: Path) -> None:
    state = filled(inception_shapes())
    torch.save(state, tmp_path / "weights.pth")
    extractor = load_inception(tmp_path / "weights.pth")
    assert isinstance(extractor, Extractor) and extractor.unit == "frame"
    frames = torch.rand(2, 3, 40, 60)
    pixels = 2 * functional.interpolate(frames, (299, 299), mode="bilinear", align_corners=False) - 1
    expected = literal_inception(state, pixels)
    found = extractor.features(frames)
    assert found.shape == (2, 2048) and expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert extractor.sha256 == hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()


@pytest.mark.long
def test_i3d_equals_its_literal_twin(tmp_path: Path) -> None:
    state = filled(i3d_shapes())
    save_file(state, tmp_path / "weights.safetensors")
    extractor = load_i3d(tmp_path / "weights.safetensors")
    assert isinstance(extractor, Extractor) and extractor.unit == "clip"
    frames = torch.rand(9, 3, 30, 50)
    pixels = 2 * functional.interpolate(frames, (224, 224), mode="bilinear", align_corners=False) - 1
    expected = literal_i3d(state, pixels.transpose(0, 1)[None])
    found = extractor.features(frames)
    assert found.shape == (1, 400) and expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    with pytest.raises(ValueError, match="at least 9"):
        extractor.features(frames[:8])


@pytest.mark.parametrize(("frames", "side"), [(14, 57), (16, 64), (9, 33)])
def test_i3d_pads_as_tensorflow_does(frames: int, side: int) -> None:
    from sgi2v.evaluation.i3d import padded

    x = torch.rand(1, 1, frames, side, side + 1)
    for kernel, stride in (
        ((7, 7, 7), (2, 2, 2)),
        ((1, 3, 3), (1, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ):
        assert torch.equal(padded(x, kernel, stride), same(x, kernel, stride))


class Small(nn.Module):
    """A network of two layers."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.second = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both layers."""
        return self.second(self.first(x))  # type: ignore[no-any-return]


def test_torchscript_is_refused_with_a_hint_and_nothing_of_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "archive.pt"
    torch.jit.script(Small()).save(path)
    with pytest.raises(ValueError, match=r"archive\.pt: a TorchScript archive.*state_dict"):
        read_weights(path)


class Evil:
    """Unpickled with code allowed, this writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"first.weight": Evil(mark)}, path)
    with pytest.raises(ValueError, match=r"evil\.pth: not a file of weights alone"):
        read_weights(path)
    assert not mark.exists()


def test_the_sha256_is_checked_when_given_and_told_always(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(Small().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path).sha256 == digest
    assert read_weights(path, sha256=digest.upper() + "\n").sha256 == digest
    with pytest.raises(ValueError, match=rf"weights\.safetensors: its SHA-256 is {digest}, not 0+"):
        read_weights(path, sha256="0" * 64)


def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.pth: no such file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("readme", "hello")
    whole = tmp_path / "whole.pth"
    torch.save(Small().state_dict(), whole)
    (tmp_path / "torn.pth").write_bytes(whole.read_bytes()[:-200])
    middle = bytearray(whole.read_bytes())
    start = middle.rindex(b"PK\x01\x02")  # an archive's list of contents; its end is whole
    middle[start : start + 4] = b"XXXX"
    (tmp_path / "spoilt.pth").write_bytes(middle)
    (tmp_path / "codes.pth").write_bytes(b"\x80\x02t.")
    names = ("text.pth", "text.safetensors", "empty.pth", "list.pth", "epoch.pth", "zip.pth", "torn.pth")
    for name in (*names, "spoilt.pth", "codes.pth"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            read_weights(tmp_path / name)


def test_weights_of_another_network_are_refused_with_the_first_names(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in Small().state_dict().items()}}, path)
    network = Small()
    load_strictly(network, read_weights(path), kind="a small network")
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(ValueError, match=r"weights\.pth.*a small network.*another shape, first first\.weight"):
        load_strictly(Small(4), read_weights(path), kind="a small network")
    with pytest.raises(ValueError, match=r"weights\.pth.*missing, first Conv2d_1a_3x3\.conv.*first first\.weight"):
        load_inception(path)
    with pytest.raises(ValueError, match=r"weights\.pth.*missing, first Conv3d_1a_7x7\.conv3d"):
        load_i3d(path)
