"""Transformers of other files than a folder's own, rounded ones, and LoRA files with other people's key names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import contract
from imprint import nothing_is_left
from sgi2v import Sampling, generate, replay
from sgi2v.backbones.base import Text
from sgi2v.backbones.dit.lora import load_lora, parse_lora
from sgi2v.backbones.dit.model import VideoTransformer
from sgi2v.backbones.registry import outline_of
from sgi2v.controllers.base import Controller
from sgi2v.errors import FieldError
from sgi2v.grid import tracks_of
from sgi2v.opening import ModelChoice, check_loras, loras
from sgi2v.run import Run
from tiny_dit import tiny_dit

SMALL = Sampling(seed=1, num_steps=2, width=64, height=48, num_frames=5)
_ORIGINAL = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("proj_out", "head.head"), ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"), (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."), (".to_out.0.", ".o."), (".to_q.", ".q."), (".to_k.", ".k."), (".to_v.", ".v."),
    (".add_k_proj.", ".k_img."), (".add_v_proj.", ".v_img."), (".norm_added_k.", ".norm_k_img."),
    (".norm2.", ".norm#."), (".norm3.", ".norm2."), (".norm#.", ".norm3."),
)  # fmt: skip


def original(name: str) -> str:
    """A weight's name in the layout of Wan's authors."""
    if name == "scale_shift_table":
        return "head.modulation"
    for ours, theirs in _ORIGINAL:
        name = name.replace(ours, theirs)
    return name.replace("scale_shift_table", "modulation")


def own_weights(kind: str) -> dict[str, Tensor]:
    return safetensors.torch.load_file(tiny_dit(kind) / "transformer" / "diffusion_pytorch_model.safetensors")


def opened(kind: str, **chosen: Any) -> VideoTransformer:
    choice = ModelChoice(backbone=str(tiny_dit(kind)), device="cpu", dtype="float32", **chosen)
    backbone = choice.load(choice.outline())
    assert isinstance(backbone, VideoTransformer)
    return backbone


def asked(backbone: VideoTransformer) -> Tensor:
    """The model's answer to noise."""
    grid, draws = backbone.grid(64, 64, 5), torch.Generator().manual_seed(0)
    condition = backbone.encode(tracks_of(contract.scene(), grid).image, Text(prompt="a cat"), grid, draws)
    level = backbone.levels(4, grid)[1]
    return backbone.denoise(backbone.noise(grid, draws), level, condition)


@pytest.mark.parametrize("kind", ["i2v-14b", "ti2v-5b"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusers"])
def test_a_file_of_other_names_is_the_same_network(kind: str, prefix: str, tmp_path: Path) -> None:
    file, weights = tmp_path / "wan.safetensors", own_weights(kind)
    if prefix != "diffusers":
        weights = {prefix + original(name): tensor for name, tensor in weights.items()}
    safetensors.torch.save_file(weights, file)
    own, other = opened(kind), opened(kind, transformer=file)
    assert torch.equal(asked(other), asked(own))
    assert other.weights_sha256 != own.weights_sha256 and other.weights_sha256 == other.outline.hash_weights()


def test_fp8_weights_are_multiplied_by_their_scales(tmp_path: Path) -> None:
    weights, scaled, meant = own_weights("ti2v-5b"), dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in weights.items():
        if ".to_q.weight" not in name:
            scaled["model.diffusion_model." + original(name)] = meant[name] = tensor
            continue
        scale = tensor.abs().max() / 400
        small = (tensor / scale).to(torch.float8_e4m3fn)
        scaled["model.diffusion_model." + original(name)] = small
        scaled["model.diffusion_model." + original(name).removesuffix("weight") + "scale_weight"] = scale
        scaled["model.diffusion_model." + original(name).removesuffix("weight") + "scale_input"] = torch.ones(())
        meant[name] = small.float() * scale
    scaled["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    for name, tensors in (("fp8", scaled), ("meant", meant)):
        safetensors.torch.save_file(tensors, tmp_path / f"{name}.safetensors")
    found, twin = (asked(opened("ti2v-5b", transformer=tmp_path / f"{n}.safetensors")) for n in ("fp8", "meant"))
    own = asked(opened("ti2v-5b"))
    assert torch.equal(found, twin) and not torch.equal(found, own)
    assert float((found - own).abs().max()) < 0.05 * float(own.abs().max())


def gradient(backbone: VideoTransformer) -> Tensor:
    """Of a feature's square sum to noisy latents."""
    grid, draws = backbone.grid(64, 64, 5), torch.Generator().manual_seed(0)
    condition = backbone.encode(tracks_of(contract.scene(), grid).image, Text(prompt="a cat"), grid, draws)
    x = backbone.noise(grid, draws).requires_grad_(True)
    (maps,) = backbone.features(x, backbone.levels(4, grid)[1], condition, ["blocks.1:first-frame"]).values()
    (found,) = torch.autograd.grad(maps.square().sum(), x)
    return found.flatten()


@pytest.mark.parametrize("way", ["int8", "fp8", "gguf"])
def test_rounded_weights_pass_gradients(way: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"quantise": way}
    if way == "gguf":
        chosen = {"transformer": save_gguf(own_weights("a14b"), tmp_path / "wan.gguf")}
    own, rounded = opened("a14b"), opened("a14b", **chosen)
    assert own.weights_sha256 != rounded.weights_sha256
    a, b = gradient(own), gradient(rounded)
    assert not torch.equal(a, b)
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.99
    assert not any(parameter.requires_grad for parameter in rounded.denoiser.parameters())
    difference = (asked(rounded) - asked(own)).abs().max() / asked(own).abs().max()
    assert 0 < float(difference) < 0.1


def save_gguf(weights: Mapping[str, Tensor], file: Path) -> Path:
    """The weights in GGUF: 8 bits where rows are long enough, as they are elsewhere."""
    import gguf

    writer = gguf.GGUFWriter(file, "wan")
    for name, tensor in weights.items():
        array = tensor.numpy()
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 and ".ffn." in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(original(name), gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(original(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def lora_of(kind: str, layer: str = "blocks.1.attn1.to_q", rank: int = 2) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(3)
    rows, columns = own_weights(kind)[f"{layer}.weight"].shape
    return torch.randn(rank, columns, generator=draws), torch.randn(rows, rank, generator=draws)


@pytest.mark.parametrize("names", ["diffusers", "comfy", "alpha"])
def test_a_lora_is_the_merged_network(names: str, tmp_path: Path) -> None:
    down, up = lora_of("ti2v-5b")
    pairs = {
        "diffusers": ("transformer.blocks.1.attn1.to_q.lora_A.weight", "transformer.blocks.1.attn1.to_q.lora_B.weight"),
        "comfy": (f"diffusion_model.{original('blocks.1.attn1.to_q.')}lora_down.weight",
                  f"diffusion_model.{original('blocks.1.attn1.to_q.')}lora_up.weight"),
    }  # fmt: skip
    a, b = pairs["comfy" if names == "alpha" else names]
    tensors, alpha = {a: down, b: up}, 1.0
    if names == "alpha":
        tensors["diffusion_model.blocks.1.self_attn.q.alpha"], alpha = torch.tensor(1.0), 0.5
    file = tmp_path / "lora.safetensors"
    safetensors.torch.save_file(tensors, file)
    backbone = opened("ti2v-5b")
    plain = asked(backbone)
    with nothing_is_left(backbone.denoiser):
        adapter = load_lora(backbone, f"{file}:0.5")
        with backbone.adapted(adapter):
            found = asked(backbone)
        assert torch.equal(asked(backbone), plain)
    merged = own_weights("ti2v-5b")
    merged["blocks.1.attn1.to_q.weight"] = merged["blocks.1.attn1.to_q.weight"] + 0.5 * alpha * up @ down
    safetensors.torch.save_file(merged, tmp_path / "merged.safetensors")
    twin = asked(opened("ti2v-5b", transformer=tmp_path / "merged.safetensors"))
    assert float((found - twin).abs().max()) < 1e-5 * float(twin.abs().max()) + 1e-5 and not torch.equal(found, plain)


def test_a_lora_joins_one_expert_or_both_and_stands_in_the_record(tmp_path: Path) -> None:
    down, up = lora_of("a14b")
    file = tmp_path / "lora.safetensors"
    layer = "transformer.blocks.1.attn1.to_q"
    safetensors.torch.save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, file)
    choice = ModelChoice(backbone=str(tiny_dit("a14b")), device="cpu", dtype="float32")
    frames = {}
    for said in ("", ":high", ":low", ":0.5"):
        backbone = choice.load(choice.outline())
        adapters = loras(backbone, [f"{file}{said}"])
        video = generate(
            contract.scene(), backbone=backbone, controller=Controller(), sampling=SMALL, adapters=adapters
        )
        frames[said] = video.frames
        assert video.run is not None
        run = Run.from_dict(video.run)
        assert [(a["scale"], len(str(a["sha256"]))) for a in run.adapters] == [(0.5 if "0.5" in said else 1.0, 64)]
        assert torch.equal(replay(run, backbone=backbone, adapters=adapters).frames, video.frames)
    assert len({tuple(f.flatten()[:999].tolist()) for f in frames.values()}) == 4


def test_rounded_or_fused_folders_are_told_apart(tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "wan"
    shutil.copytree(tiny_dit("ti2v-5b"), folder)
    file = folder / "transformer" / "config.json"
    plain = file.read_text()
    file.write_text(json.dumps({**json.loads(plain), "quantization_config": {"quant_method": "nobody_has_this"}}))
    with pytest.raises(FieldError, match=r"transformer/config.json: .* nobody_has_this"):
        outline_of(folder)
    file.write_text(plain)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    fused = {name.replace(".attn1.to_q.", ".attn1.to_qkv."): t for name, t in own_weights("ti2v-5b").items()}
    safetensors.torch.save_file(fused, weights)
    outline = outline_of(folder)
    with pytest.raises(FieldError, match="fused projections"):
        outline.load(device=torch.device("cpu"), dtype=torch.float32, memory="fast")
    with pytest.raises(FieldError, match="fused projections"):
        ModelChoice(backbone=str(tiny_dit("ti2v-5b")), transformer=weights).outline()


def test_mistakes_are_found_before_weights_are_read(tmp_path: Path) -> None:
    lora, wrong, broken = (tmp_path / f"{name}.safetensors" for name in ("lora", "wrong", "broken"))
    down, up = lora_of("ti2v-5b")
    layer = "transformer.blocks.9.attn1.to_q"
    safetensors.torch.save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, lora)
    safetensors.torch.save_file({"a": down}, wrong)
    broken.write_bytes(b"no header")
    (tmp_path / "pickle.ckpt").write_bytes(b"x")
    folder = str(tiny_dit("ti2v-5b"))
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"transformer": tmp_path / "none.safetensors"}, "transformer: .* is no file"),
        ({"transformer": wrong}, "holds no transformer"),
        ({"transformer": lora}, "a LoRA goes to --lora"),
        ({"transformer": broken}, "corrupt"),
        ({"transformer": tmp_path / "pickle.ckpt"}, "pickles can run code"),
        ({"transformer_2": wrong}, "no such network"),
        ({"backbone": "bundled", "quantise": "int8"}, "is no video transformer"),
    )
    for chosen, words in cases:
        with pytest.raises(FieldError, match=words):
            ModelChoice(**{"backbone": folder, **chosen}).outline()
    with pytest.raises(FieldError, match="lora: none"):
        check_loras(outline_of(folder), ["none.safetensors"])
    with pytest.raises(FieldError, match="is no video transformer"):
        check_loras(outline_of("bundled"), [str(lora)])
    backbone = opened("ti2v-5b")
    with pytest.raises(FieldError, match=r"blocks\.9"):
        load_lora(backbone, str(lora))
    with pytest.raises(FieldError, match="one network alone"):
        load_lora(backbone, f"{lora}:low")
    assert parse_lora(f"{lora}:0.8:high") == (lora, 0.8, "high") == parse_lora(f"{lora}:high:0.8")
