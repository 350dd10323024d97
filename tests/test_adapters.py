"""Trained additions to a network act as if merged into its weights, in either branch, and leave nothing behind."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imprint import nothing_is_left
from sgi2v import SVD, Cancelled, Controller, Run, Sampling, Scene, generate, replay
from sgi2v.backbones.adapters import Adapter, LowRank, Residuals
from sgi2v.backbones.svd import model as model_module
from sgi2v.backbones.svd.parts import SVDCondition
from sgi2v.errors import FieldError
from test_memory import model, weights_apart
from test_no_trace import CONTROLLER, Broken, broken_layer
from test_no_trace import scene as scene
from tiny import EMBEDDING, load_svd, tiny_svd

__all__ = ["scene"]  # a fixture
NUM_FRAMES = 2
SMALL = Sampling(width=64, height=64, num_frames=NUM_FRAMES, num_steps=3, seed=1)
SCALE = 0.7
LINEAR = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.2.attentions.1.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
    "up_blocks.2.attentions.0.proj_in",
    "up_blocks.2.attentions.1.temporal_transformer_blocks.0.attn1.to_v",
    "up_blocks.2.attentions.2.transformer_blocks.0.attn2.to_v",
)
CONVOLUTIONS = {
    "up_blocks.1": "up_blocks.0.upsamplers.0.conv",
    "up_blocks.3": "up_blocks.2.upsamplers.0.conv",
    "mid_block.resnets.0.spatial_res_block.norm2": "mid_block.resnets.0.spatial_res_block.conv1",
}
"""Blocks that are given residuals, and the convolution that makes what each is given."""
FEATURES = ("up_blocks.2.attentions.1:self", "up_blocks.3.resnets.0:output", "x0")


def pairs(seed: int = 0, *, up: float = 0.3) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    network = load_svd(tiny_svd(NUM_FRAMES, light=True)).denoiser
    made = {}
    for layer in LINEAR:
        num_out, num_in = network.get_submodule(layer).weight.shape  # type: ignore[misc]
        down = torch.randn(4, int(num_in), generator=generator) / 4
        made[layer] = (down, up * torch.randn(int(num_out), 4, generator=generator))
    return made


def low_rank(seed: int = 0, *, up: float = 0.3) -> LowRank:
    return LowRank(pairs(seed, up=up), name=f"lora-{seed}", sha256=f"{seed:064x}", scale=SCALE)


class Tint(nn.Module):
    """A residual for each of some blocks, the same at every place, times the signal."""

    sizes: Mapping[str, tuple[int, int]]

    def __init__(self, strength: float, sizes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.sizes = sizes
        self.tints = nn.ParameterList(
            strength * torch.randn(channels, generator=generator) for channels, _ in sizes.values()
        )

    def forward(self, signal: float | None) -> dict[str, Tensor]:
        factor = 1.0 if signal is None else signal
        return {
            block: factor * tint[None, :, None, None].expand(NUM_FRAMES, -1, side, side)
            for tint, (block, (_, side)) in zip(self.tints, self.sizes.items(), strict=True)
        }


def tint(strength: float = 0.5, branches: Literal["both", "conditional"] = "both") -> Residuals:
    """Residuals for latents of 8 x 8."""
    sizes = {
        "up_blocks.1": (64, 2),
        "up_blocks.3": (64, 8),
        "mid_block.resnets.0.spatial_res_block.norm2": (64, 1),
    }
    return Residuals(name="tint", sha256="7" * 64, module=Tint(strength, sizes), branches=branches)


def in_float64() -> SVD:
    """In float64, since guidance and a small network make much of a last bit."""
    made = load_svd(tiny_svd(NUM_FRAMES, light=True), device="cpu", dtype="float32")
    made.denoiser.double()
    return made


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return in_float64()


@pytest.fixture(scope="module")
def merged_low_rank() -> SVD:
    """The network with W + scale * B A where the adapter has a pair."""
    made = in_float64()
    for layer, (down, up) in pairs().items():
        module = made.denoiser.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        module.weight.data += SCALE * up.double() @ down.double()
    return made


@pytest.fixture(scope="module")
def merged_tint() -> SVD:
    """The network with the residuals in its convolutions' biases."""
    made = in_float64()
    residuals: Mapping[str, Tensor] = tint().module(None)
    for block, convolution in CONVOLUTIONS.items():
        module = made.denoiser.get_submodule(convolution)
        assert isinstance(module, nn.Conv2d) and module.bias is not None
        module.bias.data += residuals[block][0, :, 0, 0].detach().double()
    return made


@pytest.fixture(scope="module")
def condition() -> SVDCondition:
    """Guided, so that the network has two branches."""
    generator = torch.Generator().manual_seed(2)
    return SVDCondition(
        image_latents=torch.randn(4, 8, 8, generator=generator).double(),
        embedding=torch.randn(1, 1, EMBEDDING, generator=generator).double(),
        time_ids=torch.tensor([[6.0, 127.0, 0.02]]).double(),
        guidance=torch.linspace(1, 3, NUM_FRAMES)[:, None, None, None],
        guided=True,
    )


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 30 * torch.randn(NUM_FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def branch(condition: SVDCondition, *, conditional: bool) -> SVDCondition:
    """Guidance that leaves one branch alone in the result, though both run."""
    return replace(condition, guidance=torch.full_like(condition.guidance, float(conditional)))


@dataclass(frozen=True)
class Outcome:
    """What a network makes of latents: its estimates, and features with the gradients of a loss on them."""

    clean: Tensor
    features: Mapping[str, Tensor]
    gradient: Tensor

    @classmethod
    def of(cls, backbone: SVD, x: Tensor, condition: SVDCondition) -> "Outcome":
        grid = backbone.grid(64, 64, NUM_FRAMES)
        level = backbone.levels(6, grid)[2]
        leaf = x.clone().requires_grad_(True)
        features = backbone.features(leaf, level, condition, FEATURES)
        loss = sum((maps.float().square().mean() for maps in features.values()), torch.zeros(()))
        (gradient,) = torch.autograd.grad(loss, leaf)
        return cls(
            clean=backbone.denoise(x, level, condition),
            features={name: maps.detach() for name, maps in features.items()},
            gradient=gradient,
        )

    def parts(self) -> dict[str, Tensor]:
        return {"clean": self.clean, "gradient": self.gradient, **self.features}

    def assert_close(self, other: "Outcome", tolerance: float = 1e-5) -> None:
        for name, value in self.parts().items():
            error = float((value - other.parts()[name]).abs().max())
            assert error <= tolerance * float(value.abs().max()), f"{name} is off by {error}"

    def assert_equal(self, other: "Outcome") -> None:
        for name, value in self.parts().items():
            assert torch.equal(value, other.parts()[name]), name

    def assert_another(self, other: "Outcome") -> None:
        for name, value in self.parts().items():
            assert not torch.allclose(value, other.parts()[name], rtol=1e-3), name


@pytest.fixture(scope="module")
def plain(backbone: SVD, x: Tensor, condition: SVDCondition) -> Outcome:
    return Outcome.of(backbone, x, condition)


@pytest.fixture(params=["one after the other", "both in one pass"])
def passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways in which guidance's branches go through the network."""
    at_once = request.param == "both in one pass"
    monkeypatch.setattr(model_module, "has_own_memory", lambda _: at_once)
    return str(request.param)


# ---------------------------------------------------------------- as if merged


def test_low_rank_weights_act_as_merged_ones(
    backbone: SVD, merged_low_rank: SVD, plain: Outcome, x: Tensor, condition: SVDCondition, passes: str
) -> None:
    with backbone.adapted(low_rank()):
        adapted = Outcome.of(backbone, x, condition)
    adapted.assert_close(Outcome.of(merged_low_rank, x, condition))
    adapted.assert_another(plain)


def test_residuals_act_as_a_bias_of_the_convolution_before(
    backbone: SVD, merged_tint: SVD, plain: Outcome, x: Tensor, condition: SVDCondition, passes: str
) -> None:
    with backbone.adapted(tint()):
        adapted = Outcome.of(backbone, x, condition)
    adapted.assert_close(Outcome.of(merged_tint, x, condition))
    adapted.assert_another(plain)


def test_a_signal_reaches_the_adapters_own_network(
    backbone: SVD, plain: Outcome, x: Tensor, condition: SVDCondition
) -> None:
    adapter = tint()
    found = []
    for signal in (0.0, None, 1.0, 2.0):
        with backbone.adapted(adapter, signal):
            found.append(Outcome.of(backbone, x, condition))
    found[0].assert_equal(plain)
    found[1].assert_equal(found[2])
    found[3].assert_another(found[2])


def test_residuals_for_the_conditional_branch_leave_the_other_as_it_is(
    backbone: SVD, merged_tint: SVD, x: Tensor, condition: SVDCondition, passes: str
) -> None:
    grid = backbone.grid(64, 64, NUM_FRAMES)
    level = backbone.levels(6, grid)[2]
    for conditional in (True, False):
        one = branch(condition, conditional=conditional)
        expected = (merged_tint if conditional else backbone).denoise(x, level, one)
        other = (backbone if conditional else merged_tint).denoise(x, level, one)
        with backbone.adapted(tint(branches="conditional")):
            found = backbone.denoise(x, level, one)
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        assert not torch.allclose(found, other, rtol=1e-3)
    with backbone.adapted(tint(branches="conditional")):
        adapted = Outcome.of(backbone, x, branch(condition, conditional=True))
    adapted.assert_close(Outcome.of(merged_tint, x, branch(condition, conditional=True)))


@pytest.mark.parametrize("adapter", [low_rank(up=0.0), tint(0.0)], ids=["low rank", "residuals"])
def test_an_adapter_of_zeros_changes_no_bit(
    backbone: SVD, x: Tensor, condition: SVDCondition, adapter: Adapter, passes: str
) -> None:
    expected = Outcome.of(backbone, x, condition)
    with backbone.adapted(adapter):
        Outcome.of(backbone, x, condition).assert_equal(expected)


# ---------------------------------------------------------------- nothing is left


def test_adapters_used_in_turn_do_not_mix_and_leave_nothing(
    backbone: SVD, plain: Outcome, x: Tensor, condition: SVDCondition
) -> None:
    adapters: tuple[Adapter, ...] = (low_rank(), low_rank(1), tint())
    alone = []
    for adapter in adapters:
        fresh = in_float64()
        with nothing_is_left(fresh.denoiser), fresh.adapted(adapter):
            alone.append(Outcome.of(fresh, x, condition))
    for one, other in pairwise(alone):
        one.assert_another(other)
    for _ in range(2):
        for adapter, expected in zip(adapters, alone, strict=True):
            with nothing_is_left(backbone.denoiser), backbone.adapted(adapter):
                Outcome.of(backbone, x, condition).assert_close(expected)
            Outcome.of(backbone, x, condition).assert_equal(plain)
    with backbone.adapted(adapters[0]), backbone.adapted(adapters[2]):
        both = Outcome.of(backbone, x, condition)
    both.assert_another(alone[0])
    both.assert_another(alone[2])


@pytest.mark.parametrize("adapter", [low_rank(), tint()], ids=["low rank", "residuals"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_nothing_is_left_after_an_error(
    backbone: SVD, plain: Outcome, x: Tensor, condition: SVDCondition, adapter: Adapter, backward: bool
) -> None:
    layer = "up_blocks.2.resnets.1"
    with (
        nothing_is_left(backbone.denoiser),
        pytest.raises(Broken),
        backbone.adapted(adapter),
        broken_layer(backbone.denoiser, layer, backward=backward),
    ):
        Outcome.of(backbone, x, condition)
    Outcome.of(backbone, x, condition).assert_equal(plain)


def test_an_adapter_for_another_network_is_refused_and_leaves_nothing(backbone: SVD) -> None:
    good = pairs()
    down, up = good[LINEAR[0]]
    narrow = {**good, LINEAR[-1]: (down[:, :-1], up)}
    nowhere = {**good, "up_blocks.7.attentions.0.proj_in": (down, up)}
    no_linear = {**good, "up_blocks.1": (down, up)}
    sizes = {"up_blocks.1": (64, 2), "up_blocks.9": (64, 2)}
    elsewhere = Residuals(name="tint", sha256="", module=Tint(1.0, sizes))
    adapters: list[tuple[Adapter, str]] = [
        (LowRank(narrow, name="narrow", sha256=""), r"adapter: narrow is made for a layer .*attn2\.to_v"),
        (LowRank(no_linear, name="other", sha256=""), r"adapter: other is made for a layer up_blocks\.1 "),
        (LowRank(nowhere, name="nowhere", sha256=""), "no layer 'up_blocks.7"),
        (elsewhere, "no layer 'up_blocks.9'"),
    ]
    for adapter, message in adapters:
        with (
            nothing_is_left(backbone.denoiser),
            pytest.raises(FieldError, match=message),
            backbone.adapted(adapter),
        ):
            pytest.fail("it was attached")


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("make", [low_rank, tint], ids=["low rank", "residuals"])
def test_every_memory_mode_gives_the_same(make: Callable[[], Adapter], x: Tensor, condition: SVDCondition) -> None:
    """Weights away from the device as on a GPU, the adapter's own among them: where they are not, all is NaN."""
    single = replace(
        condition,
        image_latents=condition.image_latents.float(),
        embedding=condition.embedding.float(),
        time_ids=condition.time_ids.float(),
    )
    found = {}
    for mode in ("fast", "balanced", "low"):
        backbone = model(mode, apart=mode != "fast")
        adapter: Adapter = make()
        with weights_apart(), nothing_is_left(backbone.denoiser), backbone.adapted(adapter):
            found[mode] = Outcome.of(backbone, x, single)
        weights = adapter.module.state_dict().values()
        assert any(bool(value.isnan().any()) for value in weights) == (mode != "fast"), "it left the device"
        with weights_apart(), backbone.adapted(adapter):
            Outcome.of(backbone, x, single).assert_equal(found[mode])
    found["balanced"].assert_equal(found["fast"])
    found["low"].assert_equal(found["fast"])


# ---------------------------------------------------------------- runs and records


@pytest.fixture(scope="module")
def drawn() -> SVD:
    """A model for whole runs."""
    return load_svd(tiny_svd(NUM_FRAMES, light=True), device="cpu", dtype="float32")


def test_a_run_writes_down_its_adapters_and_only_they_make_it_again(drawn: SVD, scene: Scene) -> None:
    def draw(*adapters: Adapter) -> tuple[Tensor, Run]:
        with nothing_is_left(drawn.denoiser):
            video = generate(scene, backbone=drawn, controller=Controller(), sampling=SMALL, adapters=adapters)
        assert video.run is not None
        return video.frames, Run.from_dict(video.run)

    lora, residuals = low_rank(), tint()
    frames, run = draw(lora, residuals)
    without, plain = draw()
    assert not torch.allclose(frames, without, atol=0.01)
    assert run.adapters == [
        {"name": "lora-0", "sha256": "0" * 64, "scale": SCALE},
        {"name": "tint", "sha256": "7" * 64, "scale": 1.0},
    ]
    assert (run.version, plain.version) == (2, 1) and "adapters" not in plain.to_dict()
    assert run.key != plain.key
    with nothing_is_left(drawn.denoiser):
        again = replay(run, backbone=drawn, adapters=(low_rank(), tint()))
    assert torch.equal(again.frames, frames) and again.run == run.to_dict()

    weaker = LowRank(pairs(), name="lora-0", sha256=lora.sha256, scale=0.5)
    for given in ((), (lora,), (residuals, lora), (low_rank(1), residuals), (weaker, residuals)):
        with pytest.raises(FieldError, match=r"adapters: the video was made with lora-0 .*, tint .*; give these"):
            replay(run, backbone=drawn, adapters=given)
    with pytest.raises(FieldError, match="adapters: the video was made with no adapter"):
        replay(plain, backbone=drawn, adapters=(lora,))


def test_a_steered_run_with_an_adapter_can_be_cancelled_and_leaves_nothing(drawn: SVD, scene: Scene) -> None:
    adapters = (low_rank(), tint(branches="conditional"))
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with nothing_is_left(drawn.denoiser):
        for cancel, ending in ((None, None), (cancelled, Cancelled)):
            with pytest.raises(ending) if ending else nullcontext():
                generate(
                    scene, backbone=drawn, controller=CONTROLLER, sampling=SMALL, adapters=adapters,
                    cancelled=cancel,
                )  # fmt: skip


# ---------------------------------------------------------------- files


def test_low_rank_weights_come_from_a_safetensors_file(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    weights = {
        f"{layer}.lora_{side}.weight": weight.clone()
        for layer, pair in pairs().items()
        for side, weight in zip("AB", pair, strict=True)
    }
    save_file(weights, file)
    loaded = LowRank.load(file, scale=SCALE)
    assert (loaded.name, loaded.scale) == ("lora.safetensors", SCALE)
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not any(weight.requires_grad for weight in loaded.module.parameters())
    made, same = (sorted(str(tuple(w.shape)) for w in one.module.state_dict().values()) for one in (low_rank(), loaded))
    assert made == same

    save_file({name: weight for name, weight in weights.items() if "attn2.to_v.lora_B" not in name}, file)
    with pytest.raises(FieldError, match=r"adapter: .*lora\.safetensors lacks .*attn2\.to_v\.lora_B\.weight"):
        LowRank.load(file)
    save_file({"other": torch.zeros(2)}, file)
    with pytest.raises(FieldError, match="holds no lora_A and lora_B weights; give a LoRA"):
        LowRank.load(file)
    for content in (None, b"no weights"):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(FieldError, match=r"lora\.safetensors cannot be read .*give a safetensors file"):
            LowRank.load(file)
