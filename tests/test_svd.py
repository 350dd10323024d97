"""The SVD backbone: sizes, conditions, features by name, formats, and folders that are not right."""

import dataclasses
import json
import shutil
from pathlib import Path

import PIL.Image
import pytest
import torch

from sgi2v.backbones import Text, load_backbone, outline_of, settings_of, settings_with_recipe
from sgi2v.backbones.svd.model import SVD
from sgi2v.backbones.svd.outline import SVDOutline, SVDSettings
from sgi2v.backbones.weights import variant_of
from sgi2v.controllers import SGI2V, Controller, recommended
from sgi2v.pipeline import plan
from sgi2v.planning import Sampling
from sgi2v.run import public_name
from sgi2v.scene import Scene
from tiny import load_svd, save_tiny_svd, tiny_svd


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(3), device="cpu", dtype="float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_svd(2, light=True), tmp_path / "model"))


def test_a_size_that_does_not_fit_names_the_nearest(backbone: SVD) -> None:
    grid = backbone.grid(40, 24, 3)
    assert grid.latent_shape == (3, 4, 3, 5)
    with pytest.raises(ValueError, match="width: must be a multiple of 8, got 321; nearest are 320 and 328"):
        backbone.grid(321, 192, 14)
    with pytest.raises(ValueError, match="height"):
        backbone.grid(320, 8, 14)
    with pytest.raises(ValueError, match="num_frames"):
        backbone.grid(320, 192, 1)


def test_features_come_by_name_at_their_own_resolution(backbone: SVD) -> None:
    grid = backbone.grid(48, 32, 3)
    generator = torch.Generator().manual_seed(0)
    condition = backbone.encode(PIL.Image.new("RGB", (48, 32), "teal"), Text(), grid, generator)
    x = torch.randn(grid.latent_shape, requires_grad=True)
    names = (
        "up_blocks.2.attentions.1:first-frame",
        "up_blocks.2.attentions.1:self",
        "up_blocks.2.attentions.1:temporal",
        "up_blocks.1.attentions.0:self",
        "up_blocks.2.resnets.1:output",
        "mid_block:output",
    )
    features = backbone.features(x, backbone.levels(4, grid)[1], condition, names)
    assert tuple(features) == names
    assert {tuple(f.shape) for f in list(features.values())[:3]} == {(3, 64, 2, 3)}
    assert features["up_blocks.1.attentions.0:self"].shape == (3, 64, 1, 2)
    for name in names:
        (gradient,) = torch.autograd.grad(features[name].square().sum(), x, retain_graph=True)
        assert gradient.abs().max() > 0, name
    for frame in range(3):  # each frame's own attention equals first-frame attention only at the first frame
        same = torch.allclose(features[names[0]][frame], features[names[1]][frame], atol=1e-6)
        assert same == (frame == 0)


def test_the_clean_latents_are_a_feature_of_the_same_pass(backbone: SVD) -> None:
    grid = backbone.grid(48, 32, 3)
    level = backbone.levels(4, grid)[1]
    image = PIL.Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    condition = backbone.encode(image, Text(), grid, torch.Generator().manual_seed(0))
    x = (torch.randn(grid.latent_shape) * level.noise).requires_grad_(True)
    calls: list[int] = []
    hook = backbone.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    block = "up_blocks.2:output"
    both = backbone.features(x, level, condition, ["x0", block])
    hook.remove()
    assert len(calls) == 1 and list(both) == ["x0", block]
    unguided = dataclasses.replace(condition, guided=False)
    # On a CPU attention that wants a gradient is computed in another way, so to the last bits.
    assert torch.allclose(both["x0"], backbone.denoise(x, level, unguided), atol=1e-4)
    assert not torch.allclose(both["x0"], backbone.denoise(x, level, condition))
    alone = backbone.features(x, level, condition, ["x0"])["x0"]
    assert torch.equal(alone, both["x0"])
    assert torch.equal(both[block], backbone.features(x, level, condition, [block])[block])
    (expected,) = torch.autograd.grad(both["x0"].square().sum(), x, retain_graph=True)
    (gradient,) = torch.autograd.grad(alone.square().sum(), x)
    assert torch.equal(gradient, expected) and gradient.abs().max() > 0
    assert torch.autograd.grad(both[block].square().sum(), x)[0].abs().max() > 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("up_blocks.2.attentions.7:self", r"no layer 'up_blocks\.2\.attentions\.7'; nearest are up_blocks"),
        ("up_blocks.2.attentions.1:magic", "source one of first-frame, self, temporal, match, output"),
        ("up_blocks.0.resnets.0:self", "no layer 'up_blocks.0.resnets.0.transformer_blocks"),
    ],
)
def test_a_layer_that_is_not_there_is_named(backbone: SVD, layer: str, message: str) -> None:
    grid = backbone.grid(32, 32, 3)
    condition = backbone.encode(PIL.Image.new("RGB", (32, 32)), Text(), grid, torch.Generator())
    with pytest.raises(ValueError, match=message):
        backbone.features(torch.zeros(grid.latent_shape), backbone.levels(2, grid)[0], condition, [layer])


def test_a_prompt_goes_unused_and_that_is_said(backbone: SVD) -> None:
    grid = backbone.grid(32, 32, 3)
    image = PIL.Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    x = torch.randn(grid.latent_shape)
    estimates = []
    for text in (Text(), Text(prompt="a cat", negative="a dog")):
        condition = backbone.encode(image, text, grid, torch.Generator().manual_seed(0))
        estimates.append(backbone.denoise(x, backbone.levels(3, grid)[0], condition))
    assert torch.equal(*estimates) and not backbone.outline.takes_text
    sampling = Sampling(width=32, height=32, num_frames=3, num_steps=3)
    planned = plan(Scene(image=image, prompt="a cat"), backbone.outline, controller=Controller(), sampling=sampling)
    assert planned.warnings == (
        f"not used by none on {public_name(backbone.name)}: prompt (Stable Video Diffusion takes no text)",
    )
    assert not plan(Scene(image=image), backbone.outline, controller=Controller(), sampling=sampling).warnings
    both = Scene(image=image, prompt="a cat", negative_prompt="a dog")
    (warning,) = plan(both, backbone.outline, controller=Controller(), sampling=sampling).warnings
    assert "prompt and negative prompt (Stable Video Diffusion takes no text)" in warning


def test_no_guidance_asks_for_one_branch_only(backbone: SVD) -> None:
    calls: list[int] = []
    hook = backbone.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    grid = backbone.grid(32, 32, 3)
    for scale, passes in ((1.0, 1), (3.0, 2)):
        calls.clear()
        other = backbone.with_settings(dataclasses.replace(backbone.settings, max_guidance_scale=scale))
        condition = other.encode(PIL.Image.new("RGB", (32, 32)), Text(), grid, torch.Generator())
        other.denoise(torch.randn(grid.latent_shape), other.levels(3, grid)[0], condition)
        assert len(calls) == passes
    hook.remove()


def test_a_clip_through_the_autoencoder_keeps_shape_and_range(backbone: SVD) -> None:
    frames = torch.rand(3, 3, 32, 48)
    latents = backbone.encode_frames(frames, backbone.grid(48, 32, 3))
    assert latents.shape == (3, 4, 4, 6)
    decoded = backbone.decode(latents)
    assert decoded.shape == frames.shape and decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_and_stays_close(dtype: str) -> None:
    half = load_svd(tiny_svd(2, light=True), device="cpu", dtype=dtype)
    full = load_svd(tiny_svd(2, light=True), device="cpu", dtype="float32")
    grid = full.grid(32, 32, 2)
    image = PIL.Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    x, outputs = torch.randn(grid.latent_shape), []
    for backbone in (half, full):
        condition = backbone.encode(image, Text(), grid, torch.Generator().manual_seed(0))
        outputs.append(backbone.denoise(x, backbone.levels(5, grid)[3], condition))
    assert outputs[0].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(outputs[0].flatten(), outputs[1].flatten(), dim=0) > 0.99


def test_the_hash_follows_the_weights(folder: Path) -> None:
    before = outline_of(folder).hash_weights()
    assert before == outline_of(tiny_svd(2, light=True)).hash_weights()
    assert before == load_svd(folder, device="cpu").weights_sha256
    other = save_tiny_svd(folder.parent / "other", num_frames=2, seed=1, light=True)
    assert outline_of(other).hash_weights() != before


def test_settings_come_from_the_folder_and_a_wrong_one_is_named(folder: Path) -> None:
    assert settings_of(str(folder)).num_frames == 2
    assert settings_of("svd-xt").num_frames == 25 and settings_of("svd") == SVDSettings()
    (folder / "sgi2v.json").write_text(json.dumps({"width": 64, "recommended": {"sg-i2v": {"lr": 0.3}}}))
    assert load_backbone(folder, device="cpu").settings.width == 64
    (folder / "sgi2v.json").write_text(json.dumps({"colour": "red"}))
    with pytest.raises(ValueError, match=r"sgi2v\.json: unknown setting 'colour'"):
        settings_of(str(folder))
    with pytest.raises(ValueError, match=r"settings\.fps"):
        SVDSettings(fps=0)


def test_a_recipe_replaces_what_it_names_and_nothing_else() -> None:
    own = SVDSettings(
        num_steps=12,
        recommended={"sg-i2v": {"lr": 0.3, "iterations": 5}, "freetraj": {"factor": 0.1}},
        recipes={"quick": {"num_steps": 4, "recommended": {"sg-i2v": {"iterations": 2}, "none": {}}}},
    )
    quick = settings_with_recipe(own, "quick")
    assert quick.num_steps == 4 and quick.fps == own.fps
    assert quick.recommended["sg-i2v"] == {"lr": 0.3, "iterations": 2}
    assert quick.recommended["freetraj"] == {"factor": 0.1}
    assert own.recommended["sg-i2v"]["iterations"] == 5  # the model's own are as they were
    assert settings_with_recipe(own, None) is own
    with pytest.raises(ValueError, match=r"recipe: unknown 'slow'; known are quick"):
        settings_with_recipe(own, "slow")
    with pytest.raises(ValueError, match=r"recipe quick: unknown setting 'colour'"):
        settings_with_recipe(SVDSettings(recipes={"quick": {"colour": 1}}), "quick")


def test_paper_is_what_was_published_and_quick_is_cheaper_and_both_can_run(folder: Path) -> None:
    full = settings_of("svd")
    assert settings_with_recipe(full, "paper") == full
    assert recommended("sg-i2v", settings_with_recipe(full, "paper").recommended) == SGI2V()
    (folder / "sgi2v.json").unlink(missing_ok=True)
    published = SVDOutline.of(folder)  # of SVD's own schedule
    assert list(published.settings.recipes) == ["paper", "quick"]
    (folder / "sgi2v.json").write_text("{}")
    assert not settings_of(str(folder)).recipes, "who writes settings of its own says which recipes it has"
    bundled = outline_of("bundled")
    for outline in (published, bundled):
        planned = {}
        for name in ("paper", "quick"):
            settings = settings_with_recipe(outline.settings, name)
            controller = recommended("sg-i2v", settings.recommended)
            assert isinstance(controller, SGI2V)
            assert (controller.reuse_deep, controller.shrink, controller.settled) == (name == "quick", 1, 0)
            grid = outline.grid(settings.width, settings.height, settings.num_frames)
            planned[name] = controller.schedule(outline.levels(settings.num_steps, grid)).iterations
            assert settings.guidance_interval == (0.0, 1.0)
        paper, quick = (planned[name] for name in ("paper", "quick"))
        assert len(paper) == 50 and [50 - k for k, n in enumerate(paper) if n] == list(range(45, 29, -1))
        assert sum(paper) == 80 and len(quick) <= 25 and sum(quick) <= 24


def test_a_folder_that_is_incomplete_corrupt_or_pickled_is_refused_before_loading(folder: Path) -> None:
    assert outline_of(folder).kind == "svd"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.safetensors is corrupt"):
        load_svd(folder, device="cpu")
    weights.rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="pickle weights only"):
        load_svd(folder, device="cpu")
    (folder / "unet" / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        load_svd(folder, device="cpu")
    weights.write_bytes(whole)
    (folder / "vae" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"vae/config\.json cannot be read"):
        load_svd(folder, device="cpu")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"vae/config\.json is missing"):
        load_svd(folder, device="cpu")


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    shutil.copy(folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "unet")
    with pytest.raises(ValueError, match="unet lacks weights"):
        load_svd(folder, device="cpu")


def test_a_scheduler_that_is_not_svds_is_refused(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "epsilon"}))
    with pytest.raises(ValueError, match="prediction_type must be 'v_prediction'"):
        load_svd(folder, device="cpu")


def test_fp16_files_are_taken_when_wanted_or_alone(folder: Path) -> None:
    assert variant_of(folder, "unet", "float16") is None
    for part in ("unet", "vae", "image_encoder"):
        (plain,) = (folder / part).glob("*.safetensors")
        shutil.copy(plain, plain.with_name(plain.name.replace(".safetensors", ".fp16.safetensors")))
    assert variant_of(folder, "unet", "float32") is None and variant_of(folder, "unet", "float16") == "fp16"
    for part in ("unet", "vae", "image_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            if ".fp16" not in file.name:
                file.unlink()
    assert variant_of(folder, "unet", "float32") == "fp16"
    assert load_svd(folder, device="cpu").dtype == torch.float32


def test_a_name_that_is_nothing_and_a_hub_out_of_reach_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="is no folder and no name"):
        outline_of("no-such-model")
    with pytest.raises(ValueError, match=r"could not be fetched.*give its folder instead"):
        outline_of("someone/some-model")  # the test run is offline


def test_a_folder_with_a_program_in_it_is_refused(folder: Path) -> None:
    """Some versions of diffusers run such a file in place of the library's class."""
    for program in (folder / "unet" / "diffusers.py", folder / "pipeline.py"):
        program.write_text("raise SystemExit('it ran')")
        with pytest.raises(ValueError, match=rf"{program.name} is a program"):
            load_svd(folder, device="cpu")
        program.unlink()
    index = folder / "model_index.json"
    whole = json.loads(index.read_text())
    for changed, said in (
        ({"unet": ["mine", "UNet"]}, "takes unet from mine"),
        ({"vae": []}, "takes vae from nowhere"),
        ({"_class_name": ["pipeline", "Mine"]}, "takes _class_name from pipeline"),
    ):
        index.write_text(json.dumps({**whole, **changed}))
        with pytest.raises(ValueError, match=said):
            load_svd(folder, device="cpu")
    index.write_text(json.dumps(whole))
    assert outline_of(folder).kind == "svd"
