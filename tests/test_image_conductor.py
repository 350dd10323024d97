"""Image Conductor beside a tiny AnimateDiff: its files, its networks, its maps, its runs."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from contract import Broken, no_weights_opened, scene
from imprint import nothing_is_left
from sgi2v import Cancelled, Controller, Run, Sampling, Scene, generate, replay
from sgi2v.backbones.adapter_files import AdapterFiles, Tensorhead
from sgi2v.backbones.adapter_kinds import find_adapter, outline_with
from sgi2v.backbones.animatediff.adapters.image_conductor import ImageConductor as Networks
from sgi2v.backbones.animatediff.adapters.image_conductor import embedded
from sgi2v.backbones.animatediff.adapters.image_conductor_kind import IMAGE_CONDUCTOR, parts_of
from sgi2v.backbones.animatediff.model import AnimateDiff
from sgi2v.backbones.animatediff.released import Heads, low_rank_pairs
from sgi2v.backbones.base import Text
from sgi2v.backbones.registry import loaded, outline_of
from sgi2v.controllers.image_conductor import ImageConductor, flow_maps
from sgi2v.errors import FieldError
from sgi2v.grid import tracks_of
from sgi2v.pipeline import plan
from sgi2v.signals import Conducted
from test_memory import Strict, weights_apart
from tiny import tiny_svd
from tiny_animatediff import (
    image_conductor_files,
    save_image_conductor,
    tiny_animatediff,
    tiny_image_conductor,
    tiny_stable_diffusion,
)

KEYS = Path(__file__).parents[1].parent / "shared" / "golden" / "peers" / "imageconductor" / "released_keys.json"
KINDS: tuple[Literal["object", "camera"], ...] = ("object", "camera")
SAMPLING = Sampling(width=64, height=48, num_frames=5, num_steps=3, seed=3)
SCENE = scene("a red ball")


def model(folder: Path | None = None) -> AnimateDiff:
    outline = outline_with(outline_of(str(tiny_animatediff())), [folder or tiny_image_conductor()])
    backbone = loaded(outline, device="cpu", dtype="float32", memory="fast")
    assert isinstance(backbone, AnimateDiff)
    return backbone


@cache
def shared() -> AnimateDiff:
    return model()


def of_camera(of: Scene) -> Scene:
    return replace(of, motions=tuple(replace(motion, kind="camera") for motion in of.motions))


def asked(backbone: AnimateDiff, signal: Conducted | None = None) -> Tensor:
    """One step's estimate, adapted by a signal, or plainly without one."""
    grid, draws = backbone.grid(64, 48, 5), torch.Generator().manual_seed(0)
    condition = backbone.encode(tracks_of(SCENE, grid).image, Text(prompt="a red ball"), grid, draws)
    level = backbone.levels(4, grid)[1]
    x = backbone.noise(grid, draws)
    if signal is None:
        return backbone.denoise(x, level, condition)
    with backbone.adapted(backbone.adapters[0], signal):
        return backbone.denoise(x, level, condition)


def shown(kind: Literal["object", "camera"] = "object") -> Conducted:
    draws = torch.Generator().manual_seed(1)
    flow = F.interpolate(torch.randn(5, 2, 6, 8, generator=draws), (48, 64), mode="bilinear")
    return Conducted(kind=kind, flow=flow, picture=torch.randn(4, 6, 8, generator=draws))


# ---------------------------------------------------------------- files


def test_whole_files_have_no_fault_whatever_they_are_called(tmp_path: Path) -> None:
    folder = save_image_conductor(tmp_path / "all", pickled=True, denoiser=True)
    (folder / "flow_controlnet.ckpt").rename(folder / "flow_controlnet_obj_0024_81k.ckpt")
    found = find_adapter(folder)
    assert found.kind == "image-conductor" and found.files.pickled
    assert set(parts_of(found.files)) == {"unet", "image", "flow"}
    assert IMAGE_CONDUCTOR.faults(found.files) == ()


def spoilt(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    table = next(key for key in weights if key.endswith("pos_encoder.pe"))
    half = next(key for key in weights if ".lora_B.cmcm_weights" in key)
    match how:
        case "missing":
            return {key: value for key, value in weights.items() if key != "controlnet_mid_block.base_layer.bias"}
        case "unknown":
            return {**weights, "nowhere.weight": torch.zeros(2)}
        case "shape":
            return {**weights, "conv_in.base_layer.bias": torch.zeros(3)}
        case "half":
            return {key: value for key, value in weights.items() if key != half}
        case "plain":  # a layer whose low-rank weights are missing altogether
            return {key: value for key, value in weights.items() if not key.startswith("conv_in.lora_")}
        case "more":
            return {**weights, "down_blocks.0.resnets.0.norm1.lora_A.omcm_weights.weight": torch.zeros(2, 2)}
        case "rank":
            return {**weights, half: weights[half][:, :1].clone()}
        case _:
            assert how == "table"
            return {**weights, table: weights[table][:, :-1].clone()}


@pytest.mark.parametrize("how", ["missing", "unknown", "shape", "half", "plain", "more", "rank", "table"])
def test_files_that_are_not_whole_are_refused_with_the_key(how: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_image_conductor(), tmp_path / "spoilt"))
    file = folder / "flow_controlnet.safetensors"
    save_file(spoilt(load_file(file), how), file)
    with no_weights_of_a_model(), pytest.raises(FieldError, match=r"adapter: .* is no whole image-conductor: the flow"):
        find_adapter(folder).load(outline_of(str(tiny_animatediff())))


@contextmanager
def no_weights_of_a_model() -> Any:
    """Faults are found in headers: no tensor is read."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sgi2v.backbones.adapter_files.tensors_of", None)
        yield


@pytest.mark.parametrize("name", ["image_controlnet", "flow_controlnet"])
def test_one_network_alone_is_not_enough(name: str) -> None:
    found = AdapterFiles.read(tiny_image_conductor() / f"{name}.safetensors")
    assert IMAGE_CONDUCTOR.recognises(found)
    (fault,) = IMAGE_CONDUCTOR.faults(found)
    assert "ControlNet is missing" in fault


def test_tables_of_positions_that_differ_are_refused() -> None:
    files = image_conductor_files()
    key = next(key for key in files["unet"] if "attention_blocks.1.pos_encoder" in key)
    files["unet"][key] += 1
    from sgi2v.backbones.animatediff.released import in_diffusers_names

    with pytest.raises(FieldError, match="is not the table of the attention before it"):
        in_diffusers_names(files["unet"])


@pytest.mark.skipif(not KEYS.is_file(), reason="shared/golden, with the keys of the release, is not here")
def test_the_released_keys_are_whole_at_full_size() -> None:
    said = json.loads(KEYS.read_text())
    heads = {
        f"{file.removesuffix('.ckpt')}/{key}": Tensorhead(tuple(shape), dtype)
        for file, keys in said.items()
        for key, (shape, dtype) in keys.items()
    }
    found = AdapterFiles(place=Path("x"), name="x", files=tuple(Path(file) for file in said), tensors=heads)
    parts = parts_of(found)
    assert {role: len(part.tensors) for role, part in parts.items()} == {"unet": 1246, "image": 486, "flow": 1286}
    assert IMAGE_CONDUCTOR.faults(found) == ()
    flow = [key for key in parts["flow"].tensors if key.endswith("lora_A.omcm_weights.weight")]
    assert len(flow) == 200
    config = parts["unet"].config()
    assert config["block_out_channels"] == (320, 640, 1280, 1280) and config["cross_attention_dim"] == 768


# ---------------------------------------------------------------- networks


def without_last_layers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    ends = ("controlnet_down_blocks.", "controlnet_mid_block.")
    return {key: torch.zeros_like(value) if key.startswith(ends) else value for key, value in weights.items()}


def test_zero_last_layers_are_no_control_bit_for_bit(tmp_path: Path) -> None:
    for name, weights in image_conductor_files().items():
        if name != "unet":
            save_file(without_last_layers(weights), tmp_path / f"{name}.safetensors")
    backbone = model(tmp_path)
    for kind in KINDS:
        assert torch.equal(asked(backbone, shown(kind)), asked(backbone))
    assert not torch.equal(asked(shared(), shown()), asked(shared()))


def test_merged_weights_act_as_the_layers_beside_which_they_were_trained() -> None:
    """Literal: ``W x + B (A x)``, a convolution's A with the layer's own kernel, stride and padding."""
    files = image_conductor_files()
    networks = Networks(
        files["image_controlnet"], files["flow_controlnet"], name="a", sha256="", heads=Heads(within=4, over_time=4)
    )
    flow: Any = networks._flow
    flow.double()
    draws = torch.Generator().manual_seed(0)
    given = (
        torch.zeros(1, 4, 5, 6, 8, dtype=torch.float64), torch.tensor([500]),
        torch.randn(5, 77, 32, generator=draws).double(),
    )  # fmt: skip
    condition = torch.randn(1, 128, 5, 6, 8, generator=draws).double()

    def residuals() -> list[Tensor]:
        with torch.no_grad():
            skips, middle = flow(*given, controlnet_cond=condition, return_dict=False)
        return [*skips, middle]

    for kind, one in zip(KINDS, ("omcm_weights", "cmcm_weights"), strict=True):
        before = {name: weight.clone() for name, weight in flow.state_dict().items()}
        with networks.merged(kind):
            merged = residuals()
        assert all(torch.equal(weight, before[name]) for name, weight in flow.state_dict().items())
        hooks = []
        for layer, (down, up) in low_rank_pairs(files["flow_controlnet"], one).items():

            def beside(
                module: Any, inputs: Any, named: Any, output: Tensor, pair: tuple[Tensor, Tensor] = (down, up)
            ) -> Tensor:
                (x,), (down, up) = inputs or (named["input"],), (half.double() for half in pair)
                if isinstance(module, torch.nn.Linear):
                    return output + F.linear(F.linear(x, down), up)
                return output + F.conv2d(F.conv2d(x, down, None, module.stride, module.padding), up)

            hooks.append(flow.get_submodule(layer).register_forward_hook(beside, with_kwargs=True))
        literal = residuals()
        for hook in hooks:
            hook.remove()
        for ours, theirs in zip(merged, literal, strict=True):
            assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())


def test_the_embedding_is_the_convolutions_own() -> None:
    backbone = shared()
    network: Any = backbone.adapters[0]._flow  # type: ignore[attr-defined]
    condition = torch.randn(1, 128, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = network.controlnet_cond_embedding(condition[0].transpose(0, 1))
    with nothing_is_left(network), embedded(network, condition):
        known = network.controlnet_cond_embedding(torch.zeros(1))
    torch.testing.assert_close(known, plain)
    with nothing_is_left(network), pytest.raises(Broken), embedded(network, condition):
        raise Broken


def test_kinds_differ_and_nothing_is_left_after_an_error() -> None:
    backbone = shared()
    adapter: Any = backbone.adapters[0]
    plain = asked(backbone)
    with nothing_is_left(backbone.denoiser), nothing_is_left(adapter.module):
        found = [asked(backbone, shown(kind)) for kind in (*KINDS, KINDS[0])]
        with pytest.raises(Broken), backbone.adapted(adapter, shown()):
            raise Broken
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1], rtol=1e-3)
    assert torch.equal(asked(backbone), plain)


def test_two_sets_of_weights_used_in_turn_do_not_mix(tmp_path: Path) -> None:
    one, other = shared(), model(save_image_conductor(tmp_path / "other", seed=7))
    expected = [asked(backbone, shown()) for backbone in (one, other)]
    assert not torch.allclose(expected[0], expected[1], rtol=1e-3)
    mixed = model()
    for _ in range(2):
        for adapter, right in zip((one.adapters[0], other.adapters[0]), expected, strict=True):
            mixed.adapters = (adapter,)
            assert torch.equal(asked(mixed, shown()), right)


def test_a_denoiser_it_does_not_fit_and_no_signal_are_refused() -> None:
    adapter: Any = shared().adapters[0]
    with pytest.raises(FieldError, match="given no picture"), shared().adapted(adapter, None):
        pytest.fail("attached")
    with pytest.raises(FieldError, match="made for AnimateDiff"), adapter.attach(torch.nn.Linear(2, 2), shown(), tuple):
        pytest.fail("attached")


@pytest.mark.parametrize("mode", ["balanced", "low"])
def test_memory_modes_give_the_same(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = asked(shared(), shown())
    monkeypatch.setattr("sgi2v.backbones.arrangement.has_own_memory", lambda _: True)
    with weights_apart(Strict):
        backbone = model()
        backbone.use_memory(mode)
        adapter: Any = backbone.adapters[0]
        assert torch.equal(asked(backbone, shown()), right)
        assert any(bool(weight.isnan().any()) for weight in adapter.module.state_dict().values())
        assert torch.equal(asked(backbone, shown()), right)


# ---------------------------------------------------------------- maps and scenes


def test_maps_are_those_of_opencv() -> None:
    sparse = np.zeros((3, 40, 56, 2), np.float32)
    sparse[0, 3, 2], sparse[1, 39, 55], sparse[2, 20, 30] = (5, -3), (2, 7), (-4, 1)
    line = cv2.getGaussianKernel(99, 10, cv2.CV_64F)
    kernel = line @ line.T
    maps = flow_maps(sparse).numpy()
    assert maps.shape == (4, 2, 40, 56) and not maps[0].any()
    for frame in range(3):
        blurred = cv2.filter2D(sparse[frame].astype(np.float64), -1, kernel)  # reflect-101
        np.testing.assert_allclose(maps[frame + 1], blurred.transpose(2, 0, 1), atol=1e-6 * np.abs(blurred).max())


def test_things_and_the_camera_at_once_are_refused_before_weights() -> None:
    mixed = replace(SCENE, motions=(SCENE.motions[0], replace(SCENE.motions[1], kind="camera")))
    outline = shared().outline
    with no_weights_opened(), pytest.raises(FieldError, match="motions: move things and the camera at once"):
        plan(mixed, outline, controller=ImageConductor(), sampling=SAMPLING)
    planned = plan(SCENE, outline, controller=ImageConductor(), sampling=SAMPLING)
    assert not any("picture" in one and "not used" in one for one in planned.warnings)
    bare = plan(SCENE, outline_of(str(tiny_animatediff())), controller=Controller(), sampling=SAMPLING)
    assert any("the picture" in one for one in bare.warnings)


def test_without_its_weights_or_beside_another_model_it_is_refused() -> None:
    with pytest.raises(FieldError, match="steers weights of image-conductor"):
        plan(SCENE, outline_of(str(tiny_animatediff())), controller=ImageConductor(), sampling=SAMPLING)
    with pytest.raises(FieldError, match="backbone: image-conductor joins AnimateDiff"):
        outline_with(outline_of(str(tiny_svd())), [tiny_image_conductor()])


def test_files_of_another_width_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_animatediff(), tmp_path / "wide"))
    file = folder / "unet" / "config.json"
    said = json.loads(file.read_text()) | {"block_out_channels": [32, 96]}
    file.write_text(json.dumps(said))
    with pytest.raises(FieldError, match="made for a denoiser of"):
        outline_with(outline_of(str(folder)), [tiny_image_conductor()])


# ---------------------------------------------------------------- runs


def test_a_run_follows_its_kind_and_its_record_makes_it_again() -> None:
    backbone, videos = shared(), []
    with nothing_is_left(backbone.denoiser):
        for of in (SCENE, of_camera(SCENE)):
            video = generate(of, backbone=backbone, controller=ImageConductor(), sampling=SAMPLING)
            assert video.run is not None
            run = Run.from_dict(json.loads(json.dumps(video.run)))
            assert [one["sha256"] for one in run.adapters] == [backbone.adapters[0].sha256]
            assert torch.equal(replay(run, backbone=backbone).frames, video.frames)
            videos.append(video.frames)
    plain = generate(SCENE, backbone=backbone, controller=Controller(), sampling=SAMPLING)
    assert plain.run is not None and not Run.from_dict(plain.run).adapters
    assert not torch.equal(*videos) and not torch.equal(videos[0], plain.frames)


def test_half_precision_is_near() -> None:
    outline = outline_with(outline_of(str(tiny_animatediff())), [tiny_image_conductor()])
    backbone = loaded(outline, device="cpu", dtype="bfloat16", memory="fast")
    video, right = (
        generate(SCENE, backbone=one, controller=ImageConductor(), sampling=SAMPLING).frames
        for one in (backbone, shared())
    )
    assert bool(video.isfinite().all()) and float((video - right).abs().mean()) < 0.2


def test_a_cancelled_run_leaves_nothing() -> None:
    backbone, begun = shared(), 0
    adapter: Any = backbone.adapters[0]

    def over() -> bool:
        nonlocal begun
        begun += 1
        return begun > 2

    with nothing_is_left(backbone.denoiser), nothing_is_left(adapter.module), pytest.raises(Cancelled):
        generate(SCENE, backbone=backbone, controller=ImageConductor(), sampling=SAMPLING, cancelled=over)


def test_released_files_beside_stable_diffusion_make_the_whole_model(tmp_path: Path) -> None:
    """Its denoiser and its schedule take the folder's place, and are part of what the record says of the model."""
    bare = outline_of(str(tiny_stable_diffusion()))
    with pytest.raises(FieldError, match="has no motion modules"):
        plan(SCENE, bare, controller=Controller(), sampling=SAMPLING)
    pickled = save_image_conductor(tmp_path / "pickled", pickled=True, denoiser=True)
    safe = save_image_conductor(tmp_path / "safe", denoiser=True)
    found = []
    for folder in (pickled, safe):
        backbone = loaded(outline_with(bare, [folder]), device="cpu", dtype="float32", memory="fast")
        assert isinstance(backbone, AnimateDiff)
        assert backbone.outline.scheduler["beta_schedule"] == "linear"
        assert backbone.settings.default == "image-conductor"
        assert all(
            needed > 0
            for needed in backbone.outline.memory_needed(
                backbone.grid(64, 48, 5), backbone.device, torch.float32
            ).values()
        )
        (known,) = backbone.outline.adapters
        numbers = {name: sum(w.numel() for w in ws.values()) for name, ws in image_conductor_files().items()}
        assert known.count == numbers["image_controlnet"] + numbers["flow_controlnet"]
        found.append(asked(backbone, shown()))
        denoiser = backbone.denoiser.state_dict()
        key = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn2.to_q.weight"
        own = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_q.weight"
        assert torch.equal(denoiser[key], image_conductor_files()["unet"][own])
        assert len(backbone.weights_sha256) == 64 and backbone.weights_sha256 != bare.hash_weights()
    assert torch.equal(*found)


@pytest.mark.long
def test_the_recording_of_the_published_code_is_met(tmp_path: Path) -> None:
    folder = KEYS.parent
    if not folder.is_dir():
        pytest.skip("shared/golden, with recordings of other systems, is not here")
    from peer_image_conductor import system_of

    parts = system_of(folder)
    assert parts is not None
    found = list(parts(folder, tmp_path))
    assert len(found) > 40 and [str(part) for part in found if not part.met] == []
