"""Folders of Stable Video Diffusion as people have them: used fields are checked, each whole form is read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contract import no_weights_opened
from sgi2v.backbones import load_backbone
from sgi2v.backbones.folder import bundled_folder
from sgi2v.backbones.quiet import quiet_libraries
from sgi2v.backbones.registry import outline_of
from sgi2v.backbones.svd.outline import NETWORKS, SVDOutline
from sgi2v.backbones.weights import forms_in, variant_of, weight_files
from sgi2v.errors import FieldError
from tiny import tiny_svd

PARTS = (*NETWORKS, "scheduler", "feature_extractor")
UNET, VAE, CLIP, STEPS = (
    "unet/config.json",
    "vae/config.json",
    "image_encoder/config.json",
    "scheduler/scheduler_config.json",
)
SHA256 = "3de57cb223c7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundled model in a folder of its own, weights as links."""
    made = tmp_path / "model"
    for part in PARTS:
        shutil.copytree(bundled_folder() / part, made / part, copy_function=_link)
    for name in ("model_index.json", "sgi2v.json"):
        shutil.copy(bundled_folder() / name, made)
    return made


def _link(source: str, place: str) -> None:
    if source.endswith(".json"):
        shutil.copy(source, place)
    else:
        Path(place).symlink_to(source)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny model whose networks are one file each."""
    return Path(shutil.copytree(tiny_svd(light=True), tmp_path / "tiny"))


def change(file: Path, **values: object) -> None:
    data = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({name: value for name, value in data.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        *((STEPS, *pair) for pair in (
            ("final_sigmas_type", "sigma_min"), ("use_beta_sigmas", True), ("use_exponential_sigmas", True),
            ("_class_name", "DPMSolverMultistepScheduler"), ("prediction_type", "epsilon"),
            ("timestep_type", "discrete"),
            ("beta_schedule", "cosine"), ("interpolation_type", "cubic"), ("timestep_spacing", "random"),
            ("use_karras_sigmas", "yes"), ("use_karras_sigmas", None), ("sigma_min", "low"), ("sigma_min", -1),
            ("sigma_min", 900), ("sigma_max", True), ("num_train_timesteps", None), ("beta_start", None),
            ("beta_end", 2), ("steps_offset", None), ("trained_betas", [0.1]), ("rescale_betas_zero_snr", True),
        )),
        *((UNET, *pair) for pair in (
            ("in_channels", 12), ("in_channels", None), ("out_channels", None), ("num_frames", None),
            ("num_frames", 14.5), ("num_frames", 0), ("down_block_types", ["DownBlock2D"]), ("down_block_types", None),
            ("up_block_types", ["UpBlockSpatioTemporal"]), ("block_out_channels", [32]), ("layers_per_block", None),
            ("num_attention_heads", None), ("cross_attention_dim", None), ("cross_attention_dim", 32),
            ("transformer_layers_per_block", 0), ("addition_time_embed_dim", None),
            ("projection_class_embeddings_input_dim", 100), ("_class_name", "UNet2DConditionModel"),
        )),
        *((VAE, *pair) for pair in (
            ("scaling_factor", None), ("scaling_factor", "big"), ("scaling_factor", 0), ("latent_channels", 16),
            ("_class_name", "AutoencoderKL"), ("block_out_channels", None), ("block_out_channels", [64, None]),
            ("force_upcast", "yes"), ("layers_per_block", None), ("in_channels", 1), ("down_block_types", None),
        )),
        *((CLIP, *pair) for pair in (
            ("projection_dim", 768), ("projection_dim", None), ("image_size", 336), ("hidden_size", None),
            ("architectures", ["CLIPTextModel"]), ("num_channels", 1),
        )),
        ("feature_extractor/preprocessor_config.json", "image_mean", None),
        ("feature_extractor/preprocessor_config.json", "image_std", [0.2, 0.2]),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_named_with_its_file(file: str, field: str, value: object, folder: Path) -> None:
    assert outline_of(folder).kind == "svd"
    change(folder / file, **{field: value})
    with no_weights_opened(), pytest.raises(FieldError) as caught:
        SVDOutline.of(folder)
    text = str(caught.value)
    others = {"cross_attention_dim": "projection_dim", "sigma_min": "sigma_min"}
    assert text.startswith("backbone: ") and "\n" not in text and "got" in text
    assert f"{folder / file}: {field} must" in text or (others.get(field, "nothing") in text)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_a_configuration_is_refused(word: str, folder: Path) -> None:
    file = folder / VAE
    file.write_text(file.read_text().replace('"scaling_factor": ', f'"scaling_factor": {word}, "was": '))
    with pytest.raises(FieldError, match=f"vae/config.json cannot be read .*{word} is no number"):
        outline_of(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {STEPS: {"final_sigmas_type": "absent", "use_beta_sigmas": "absent"}},
        {STEPS: {"use_karras_sigmas": False}},
        {STEPS: {"sigma_min": None, "sigma_max": None}},
        {UNET: {"num_frames": "absent", "_diffusers_version": "0.24"}},
        {CLIP: {"num_channels": "absent"}},
    ],
)
def test_what_is_as_svd_has_it_or_absent_is_taken(changed: dict[str, dict[str, object]], folder: Path) -> None:
    for file, values in changed.items():
        change(folder / file, **values)
    levels = outline_of(folder).levels(5, outline_of(folder).grid(64, 64, 4))
    noise = [level.noise for level in levels]
    assert len(noise) == 6 and noise[-1] == 0 and noise == sorted(noise, reverse=True)


def renamed(folder: Path, part: str, form: str) -> None:
    for file in (folder / part).glob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", f".{form}.safetensors")))


@pytest.mark.parametrize("forms", [
    {"vae": "fp16"}, {"unet": "fp16"}, {"image_encoder": "fp16", "vae": "bf16"}, dict.fromkeys(NETWORKS, "bf16"),
    dict.fromkeys(NETWORKS, "fp16"), {"unet": "fp32", "vae": "non_ema"},
])  # fmt: skip
def test_each_network_is_read_in_the_form_that_it_has(forms: dict[str, str], tiny: Path) -> None:
    wanted = weights_of(load_backbone(tiny, device="cpu", dtype="float32"))
    for part, form in forms.items():
        renamed(tiny, part, form)
    for dtype in ("float32", "bfloat16"):
        backbone = load_backbone(tiny, device="cpu", dtype=dtype)
        found = weights_of(backbone)
        assert all(torch.equal(found[name], wanted[name].to(found[name].dtype)) for name in wanted)


def weights_of(backbone: Any) -> dict[str, torch.Tensor]:
    pipeline = backbone._pipeline
    networks = (pipeline.unet, pipeline.vae, pipeline.image_encoder)
    return {f"{k}.{name}": value for k, network in enumerate(networks) for name, value in network.state_dict().items()}


def test_the_wanted_precision_comes_first_and_half_a_form_is_none(tmp_path: Path) -> None:
    unet = tmp_path / "unet"
    unet.mkdir()

    def put(*names: str) -> None:
        for file in unet.iterdir():
            file.unlink()
        for name in names:
            (unet / f"{name}.safetensors").touch()

    stem = "diffusion_pytorch_model"
    put(stem, f"{stem}.fp16", f"{stem}.bf16")
    assert [variant_of(tmp_path, "unet", name) for name in ("float32", "float16", "bfloat16")] == [None, "fp16", "bf16"]
    put(f"{stem}-00001-of-00002", f"{stem}.fp16-00001-of-00002", f"{stem}.fp16-00002-of-00002")
    assert variant_of(tmp_path, "unet", "float32") == "fp16", "the plain form lacks its second part"
    put("model-00001-of-00002.fp16", "model-00002-of-00002.fp16")
    assert list(forms_in(tmp_path, "unet")) == ["fp16"], "as older libraries wrote it"
    put("svd", "pytorch_lora_weights", f"{stem} copy", "._" + stem)
    assert not forms_in(tmp_path, "unet")


def test_stray_files_do_not_change_what_a_model_is(folder: Path) -> None:
    clean = outline_of(folder).hash_weights()
    assert clean.startswith(SHA256) and clean == outline_of("bundled").hash_weights()
    for part in NETWORKS:
        weights = weight_files(folder, [part])[0]
        for name in (f"._{weights.name}", ".DS_Store", "backup.safetensors", f"{weights.stem} copy.safetensors",
                     "pytorch_lora_weights.safetensors", "notes.txt", "._config.json", "._model.py"):  # fmt: skip
            (folder / part / name).write_bytes(b"\x00\x05\x16\x07")
    for name in (".DS_Store", "._unet", "._model_index.json", "._pipeline.py"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    outline = outline_of(folder)
    assert outline.hash_weights() == clean
    assert load_backbone(folder, device="cpu").weights_sha256 == clean
    assert outline.memory_needed(outline.grid(64, 64, 4), torch.device("cpu"), torch.float32)


def test_parts_that_an_index_says_are_absent_do_not_matter(folder: Path) -> None:
    change(
        folder / "model_index.json",
        safety_checker=[None, None],
        text_encoder=[None, None],
        feature_extractor=[None, None],
    )
    assert load_backbone(folder, device="cpu").name == str(folder)


def test_without_a_feature_extractor_the_values_are_clips(folder: Path) -> None:
    with_one: Any = load_backbone(folder, device="cpu")
    shutil.rmtree(folder / "feature_extractor")
    change(folder / "model_index.json", feature_extractor="absent")
    without: Any = load_backbone(folder, device="cpu")
    for name in ("image_mean", "image_std"):
        assert list(getattr(without._pipeline.feature_extractor, name)) == list(
            getattr(with_one._pipeline.feature_extractor, name)
        )


@pytest.mark.parametrize("added", ["to_q.lora_A.default.weight", "to_q.base_layer.weight", "to_q.lora.down.weight"])
@pytest.mark.parametrize("part", ["unet", "image_encoder"])
def test_a_lora_that_is_not_merged_is_told_to_be(added: str, part: str, tiny: Path) -> None:
    (file,) = weight_files(tiny, [part])
    weights = {**load_file(file), f"down_blocks.0.{added}": torch.zeros(2, 2)}
    file.unlink()
    save_file(weights, file)
    with pytest.raises(FieldError, match=r"holds a LoRA .*; merge it before saving: pipeline\.fuse_lora\(\)"):
        load_backbone(tiny, device="cpu")


@pytest.mark.parametrize("part", NETWORKS)
def test_weights_that_are_missing_are_never_made_up(part: str, tiny: Path) -> None:
    (file,) = weight_files(tiny, [part])
    weights = load_file(file)
    name = sorted(weights)[0]
    del weights[name]
    file.unlink()
    save_file(weights, file)
    with pytest.raises(FieldError, match=rf"{part} (lacks weights that its configuration asks for|cannot be loaded)"):
        load_backbone(tiny, device="cpu")


@pytest.mark.parametrize("name", ["svd.safetensors", "svd_xt.ckpt", "wan.gguf"])
def test_a_model_in_one_file_is_told_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(16))
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(FieldError, match=rf"{name} is a model in one file.*; give svd or svd-xt") as caught:
            outline_of(source)
        assert "\n" not in str(caught.value)


def test_loading_says_nothing_and_warns_of_nothing(folder: Path) -> None:
    """With warnings as errors, and a weight too many, which the libraries report at length."""
    (file,) = weight_files(folder, ["image_encoder"])
    weights = {**load_file(file), "vision_model.embeddings.position_ids": torch.zeros(1, 50)}
    file.unlink()
    save_file(weights, file)
    program = f"from sgi2v import load_backbone; load_backbone({str(folder)!r}, device='cpu')"
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("shown", [True, False])
def test_the_libraries_speak_as_before_afterwards(shown: bool) -> None:
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    libraries: Any = (of_diffusers, of_transformers)

    def state() -> list[tuple[int, bool]]:
        return [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]

    before = state()
    try:
        for library in libraries:
            (library.enable_progress_bar if shown else library.disable_progress_bar)()
        with pytest.raises(KeyError), quiet_libraries():
            assert not any(bars for _, bars in state())
            raise KeyError
        assert state() == [(verbosity, shown) for verbosity, _ in before]
    finally:
        for library, (_, bars) in zip(libraries, before, strict=True):
            (library.enable_progress_bar if bars else library.disable_progress_bar)()
