"""Training at tiny size: what it computes, that it resumes exactly, and that what it writes is a model."""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from sgi2v.cli import main
from sgi2v.training import autoencoder, denoiser, feed, probe
from sgi2v.training.autoencoder_fields import AutoencoderTraining
from sgi2v.training.checkpoint import Stopped, save_checkpoint
from sgi2v.training.denoiser import Drawn
from sgi2v.training.export import export
from sgi2v.training.feed import Feeder
from sgi2v.training.networks import build
from sgi2v.training.optimiser import MasterAdam
from sgi2v.training.spatial import pictures_only, silence_temporal_layers
from sgi2v.training.stages import DenoiserTraining, Stage, TrainingType
from training_log import history


def _autoencoder(tmp_path: Path) -> AutoencoderTraining:
    return AutoencoderTraining(
        output=tmp_path / "autoencoder",
        num_encoder_steps=2,
        num_steps=3,
        num_clip_steps=1,
        batch_size=4,
        size=32,
        channels=(32, 32, 32, 32),
        latent_channels=4,
        checkpoint_every=1,
        measure_every=3,
        dtype="float32",
    )


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    autoencoder.build(_autoencoder(folder)).save_pretrained(folder)
    return folder


@pytest.fixture
def training(tmp_path: Path, vae_folder: Path) -> DenoiserTraining:
    small = {"batch_size": 2, "width": 64, "height": 64, "num_steps": 2}
    return DenoiserTraining(
        output=tmp_path / "denoiser",
        autoencoder=vae_folder,
        stages=(Stage(num_frames=1, **small), Stage(num_frames=3, num_things=2, **small)),  # type: ignore[arg-type]
        channels=(32, 32, 32, 32),
        embedding=32,
        num_frames=3,
        pool_steps=2,
        checkpoint_every=1,
        dtype="float32",
    )


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _same(one: nn.Module, other: nn.Module) -> bool:
    mine, others = one.state_dict(), other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in mine.items())


def _inputs(num_frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, num_frames, 8, 8, 8), torch.tensor(0.3), torch.randn(2, 1, 32), torch.rand(2, 3)


def _shake(module: nn.Module) -> None:
    """Random weights everywhere, so that no layer is silent by its initialisation."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_temporal_layers_come_back_after_an_exception_and_change_nothing_meanwhile(
    training: DenoiserTraining,
) -> None:
    unet = build(training)["unet"]
    _shake(unet)
    before, modules = _weights(unet), [type(module) for module in unet.modules()]
    with contextlib.suppress(RuntimeError), pictures_only(unet):
        # Each frame is a picture by itself: what the others show does not matter.
        inputs = _inputs(3)
        whole = unet(*inputs).sample
        changed = inputs[0].clone()
        changed[:, 1:] += 1
        assert torch.allclose(unet(changed, *inputs[1:]).sample[:, 0], whole[:, 0], atol=1e-5)
        raise RuntimeError
    assert [type(module) for module in unet.modules()] == modules
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert not torch.allclose(unet(changed, *inputs[1:]).sample[:, 0], whole[:, 0], atol=1e-5)


def test_silent_temporal_layers_do_not_mix_frames(training: DenoiserTraining) -> None:
    unet = build(training)["unet"]
    _shake(unet)
    silence_temporal_layers(unet)
    inputs = _inputs(3)
    with pictures_only(unet):
        pictures = unet(*inputs).sample
    assert torch.allclose(unet(*inputs).sample, pictures, atol=1e-5)


def test_loss_of_a_perfect_network_is_zero_and_its_target_is_the_schedulers(
    training: DenoiserTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The v that the loss asks for is the one from which EulerDiscreteScheduler gets the clean latents."""
    models = build(training)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder)
    batch = Feeder(training, vae)(2)
    seen: dict[str, Tensor] = {}

    def unet(sample: Tensor, time: Tensor, *_: Tensor) -> object:
        sigma = torch.exp(4 * time).view(-1, 1, 1, 1, 1)
        scaled = sample[:, :, : batch.latents.shape[2]]
        noisy = scaled * (sigma**2 + 1).sqrt()
        # diffusers' step: clean = v * (-sigma / sqrt(sigma^2 + 1)) + noisy / (sigma^2 + 1), solved for v.
        seen["v"] = (noisy / (sigma**2 + 1) - batch.latents) / (sigma / (sigma**2 + 1).sqrt())
        return type("Output", (), {"sample": seen["v"]})

    monkeypatch.setattr(models["unet"], "forward", unet)
    losses = denoiser.loss_of(models, batch, Drawn.of(training, 2, torch.device("cpu"), 2))
    assert losses.shape == (2,)
    assert losses.max() < 1e-6


def test_a_batch_depends_on_its_step_alone(training: DenoiserTraining) -> None:
    vae = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder)
    forth, back = Feeder(training, vae), Feeder(training, vae)
    ahead = [forth(step) for step in range(4)]
    behind = [back(step) for step in reversed(range(4))][::-1]
    for one, other in zip(ahead, behind, strict=True):
        assert torch.equal(one.latents, other.latents) and torch.equal(one.added_time_ids, other.added_time_ids)
    assert ahead[0].latents.shape[1] == 1 and ahead[2].latents.shape[1] == 3
    assert not torch.equal(ahead[2].image_latents, ahead[3].image_latents)


def test_the_given_picture_is_the_first_frame_as_the_pipeline_encodes_it(training: DenoiserTraining) -> None:
    vae = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder)
    batch = Feeder(replace(training, noise_aug=(1e-6, 1e-6), motion_jitter=0.0), vae)(2)
    assert torch.allclose(batch.image_latents * vae.config.scaling_factor, batch.latents[:, 0], atol=1e-3, rtol=1e-3)
    assert batch.added_time_ids[:, 0].eq(training.fps - 1).all()


@pytest.mark.long
def test_a_training_that_is_killed_gives_the_weights_of_one_that_is_not(tmp_path: Path) -> None:
    """SIGKILL within a checkpoint, around it and from outside, then Ctrl-C: the same bits, and a whole log."""
    victim = Path(__file__).with_name("train_victim.py")
    done = subprocess.run([sys.executable, str(victim), str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    whole, killed = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
    assert all(torch.isfinite(value).all() for value in whole.values())
    for name in ("whole", "killed"):
        assert [row["step"] for row in history(tmp_path / name / "log.jsonl")] == list(range(1, 6))


@pytest.mark.long
def test_autoencoder_resumes_with_identical_results_and_standard_latents(tmp_path: Path) -> None:
    training = _autoencoder(tmp_path)
    lines: list[Mapping[str, float]] = []
    whole = autoencoder.train(training, log=lines.append)
    assert [line["step"] for line in lines] == [2, 5, 5]
    assert all(line.get("psnr", line.get("psnr photographs", 0)) > 0 for line in lines)
    parts = replace(training, output=tmp_path / "parts")
    for at, answers in ((1, iter([True])), (3, iter([False, True]))):
        with pytest.raises(Stopped, match=f"after step {at} of"):
            autoencoder.train(parts, stop=partial(next, answers))
    assert _same(autoencoder.train(parts), whole)
    with torch.no_grad():
        pictures = torch.cat([2 * autoencoder.pictures(training, 10**9 + n) - 1 for n in range(16)])
        latents = whole.encode(pictures).latent_dist.mean
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoder_training_leaves_the_encoder_alone(
    tmp_path: Path, dtype: TrainingType, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(_autoencoder(tmp_path), dtype=dtype)
    autoencoder.build(training).save_pretrained(tmp_path / "initial")
    before = AutoencoderKLTemporalDecoder.from_pretrained(tmp_path / "initial")
    measured: list[dict[str, Tensor]] = []

    def measure(model: nn.Module, **_: int) -> dict[str, dict[str, float]]:
        measured.append(_weights(model))
        return {}

    monkeypatch.setattr(autoencoder, "measure_autoencoder", measure)
    after = autoencoder.train(replace(training, initial=tmp_path / "initial", measure_every=1), log=lambda _: None)
    assert _same(before.encoder, after.encoder) and _same(before.quant_conv, after.quant_conv)
    assert not _same(before.decoder, after.decoder)
    assert len(measured) == training.num_steps
    assert all(torch.equal(value, measured[-1][name]) for name, value in after.state_dict().items())


@pytest.mark.long
def test_latents_that_are_kept_stay_near_those_of_the_initial_autoencoder(tmp_path: Path) -> None:
    training = replace(
        _autoencoder(tmp_path), lr=1e-3, num_warmup=0, num_steps=40, ema=0.8, initial=tmp_path / "initial"
    )
    before = autoencoder.build(_autoencoder(tmp_path))
    before.register_to_config(scaling_factor=0.5)
    before.save_pretrained(tmp_path / "initial")
    pictures = 2 * autoencoder.pictures(training, 10**9) - 1
    moved = {}
    for weight in (1e-3, 1e3):
        kept = replace(training, output=tmp_path / f"{weight}", joint=True, keep_latents=weight)
        after = autoencoder.train(kept)
        assert after.config.scaling_factor == 0.5 and not _same(before.decoder, after.decoder)
        with torch.no_grad():
            difference = after.encode(pictures).latent_dist.mean - before.encode(pictures).latent_dist.mean
        moved[weight] = float(difference.std())
    assert 0 < moved[1e3] < 0.7 * moved[1e-3]
    stopped = replace(training, output=tmp_path / "stopped", joint=True, keep_latents=1e3)
    with pytest.raises(Stopped):
        autoencoder.train(stopped, stop=partial(next, iter([False] * 5 + [True])))
    assert _same(autoencoder.train(stopped), after)
    for wrong in ({"joint": False}, {"initial": None}, {"keep_latents": -1.0}):
        with pytest.raises(ValueError, match=r"keep_latents: .* wants joint and initial"):
            replace(kept, **wrong)


@pytest.mark.long
def test_a_training_of_the_autoencoder_that_is_out_of_time_ends_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--num-encoder-steps 2 --num-steps 1 --batch-size 2 --size 32 --channels 32 32 32 32 --dtype float32"
    command = ["train", "autoencoder", "--output", str(tmp_path), *words.split()]
    assert main([*command, "--minutes", "1e-9"]) == 0
    assert "stopped after step 1 of 2, saved; the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "autoencoder").exists()
    assert main(command) == 0
    assert "psnr world" in capsys.readouterr().out and (tmp_path / "autoencoder").is_dir()


def test_a_decoder_learns_from_latents_as_rough_as_asked_for(tmp_path: Path) -> None:
    training = replace(_autoencoder(tmp_path), latent_noise=0.5)
    latents = torch.zeros(6, 4, 32, 32)
    rough = autoencoder._roughened(latents, training, 3, num_frames=3, deviation=2.0)
    assert torch.equal(rough, autoencoder._roughened(latents, training, 3, num_frames=3, deviation=2.0))
    spread = rough.flatten(1).std(1)
    assert torch.allclose(spread[:3], spread[:1], rtol=0.05)  # a clip's frames alike, two clips not
    assert torch.allclose(spread[3:], spread[3:4], rtol=0.05)
    assert not torch.allclose(spread[0], spread[3], rtol=0.05)
    assert bool((spread < 1.05).all()) and not torch.equal(rough[0], rough[1])
    plain = replace(training, latent_noise=0.0)
    assert torch.equal(autoencoder._roughened(latents, plain, 3, num_frames=3, deviation=2.0), latents)
    with pytest.raises(ValueError, match="latent_noise: must not be below 0"):
        replace(training, latent_noise=-0.1)


@pytest.mark.long
def test_an_export_is_a_pipeline_that_runs(training: DenoiserTraining, tmp_path: Path) -> None:
    models = build(training)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder)
    folder = export(tmp_path / "model", models, vae, {"width": 64}, sigma_max=50.0, shard_size="200KB")
    export(folder, models, vae, {"width": 64}, sigma_max=50.0, shard_size="200KB")
    assert max(file.stat().st_size for file in folder.rglob("*.safetensors")) < 2_000_000
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    assert vae.config._name_or_path and not any("_name_or_path" in file.read_text() for file in folder.rglob("*.json"))
    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.sigma_max == 50.0
    image = Image.new("RGB", (64, 64), (200, 40, 90))
    frames = pipeline(image, height=64, width=64, num_frames=3, num_inference_steps=2, output_type="pt").frames
    assert frames.shape == (1, 3, 3, 64, 64) and torch.isfinite(frames).all()
    original = models["unet"].state_dict()
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value, original[name].half().float()), name


def test_the_image_encoder_sees_what_the_pipeline_shows_it(training: DenoiserTraining, tmp_path: Path) -> None:
    models = build(training)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder)
    folder = export(tmp_path / "model", models, vae, {})
    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    for height, width in ((64, 128), (256, 320)):
        pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        theirs = pipeline._encode_image(Image.fromarray(pixels.numpy()), "cpu", 1, False)
        shown = feed.clip_pixels(pixels.permute(2, 0, 1)[None].float() / 255)
        ours = pipeline.image_encoder(shown).image_embeds[:, None]
        assert torch.allclose(theirs, ours, atol=2e-3)


@pytest.mark.long
def test_fine_tuning_starts_from_a_folder(training: DenoiserTraining, tmp_path: Path) -> None:
    models = build(replace(training, seed=5))
    vae = AutoencoderKLTemporalDecoder.from_pretrained(training.autoencoder)
    folder = export(tmp_path / "model", models, vae, {})
    tuned = build(replace(training, initial=folder))
    assert isinstance(tuned["unet"], UNetSpatioTemporalConditionModel)
    original = models.state_dict()
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, original[name].half().float())


def test_master_adam_is_adam_and_averages() -> None:
    torch.manual_seed(0)
    mine, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(mine.state_dict())
    ours = MasterAdam(mine, clip=1e9, ema=0.5)
    adam = torch.optim.Adam(theirs.parameters(), lr=0.1, betas=(0.9, 0.99))
    average = theirs.weight.detach().clone()
    for number in range(1, 5):
        x = torch.randn(4, 3)
        for model in (mine, theirs):
            model(x).square().sum().backward()
        ours.step(0.1)
        adam.step()
        adam.zero_grad()
        decay = min(0.5, (number - 1) / (number + 9))
        average = decay * average + (1 - decay) * theirs.weight.detach()
    assert torch.allclose(mine.weight, theirs.weight, atol=1e-6)
    ours.write_average(mine)
    assert torch.allclose(mine.weight, average, atol=1e-6)


def test_the_probe_finds_a_feature_that_moves_with_the_object() -> None:
    torch.manual_seed(0)
    field = torch.randn(6, 16, 32)
    maps = torch.stack([field.roll(2 * frame, -1) for frame in range(4)])
    centers = torch.tensor([[18.0 + 8 * frame, 30.0] for frame in range(4)])
    assert max(probe._distances(maps, centers, range(1, 4), 4)) < 4
    still = field.expand(4, -1, -1, -1).clone()
    assert probe._distances(still, centers, [3], 4)[0] == pytest.approx(24, abs=4)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"width": 96}, "multiples of 64"), ({"height": 8}, "multiples of 64"), ({"num_frames": 0}, "frame")],
)
def test_stages_that_cannot_be_are_refused(fields: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Stage(**{"num_steps": 1, "num_frames": 1, "batch_size": 1, **fields})  # type: ignore[arg-type]


def test_learning_rate_rises_then_goes_to_its_end() -> None:
    stage = Stage(num_steps=100, num_frames=1, batch_size=1, lr=1e-3, final_lr=1e-5, num_warmup=10)
    assert stage.rate(0) == pytest.approx(1e-4, rel=0.1)
    assert stage.rate(50) == pytest.approx(1e-4, rel=0.01)
    assert stage.rate(100) == pytest.approx(1e-5, rel=0.01)


@pytest.mark.long
def test_a_rate_that_was_too_high_is_lowered_where_it_went_astray(training: DenoiserTraining) -> None:
    with pytest.raises(Stopped):
        denoiser.train(training, stop=partial(next, iter([False, False, True])))
    first, second = training.stages
    lower = replace(second, lr=1e-5, final_lr=1e-5, num_warmup=1)
    with pytest.raises(ValueError, match=r"stages\.0\.lr: the checkpoint .* was trained with 0\.0005, not 1e-05"):
        denoiser.train(replace(training, stages=(replace(first, lr=1e-5), lower)))
    denoiser.train(replace(training, stages=(first, lower)))


def test_what_is_no_number_replaces_no_checkpoint(training: DenoiserTraining) -> None:
    optimiser = MasterAdam(nn.Linear(3, 2))
    save_checkpoint(training.output, optimiser, 1)
    before = (training.output / "newest.pt").read_bytes()
    optimiser.parameters[0].grad = torch.full_like(optimiser.parameters[0], float("inf"))
    optimiser.step(0.1)
    with pytest.raises(ValueError, match="weights: are no finite numbers after step 2; go on from the newest"):
        save_checkpoint(training.output, optimiser, 2)
    assert (training.output / "newest.pt").read_bytes() == before


@pytest.mark.long
def test_latents_that_may_change_are_roughened_by_their_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(_autoencoder(tmp_path), joint=True, latent_noise=0.5, num_steps=1, num_clip_steps=0)
    seen: list[tuple[float, float]] = []

    def roughened(latents: Tensor, *_: Any, deviation: float, **__: Any) -> Tensor:
        seen.append((deviation, float(latents.detach().std())))
        return latents

    monkeypatch.setattr(autoencoder, "_roughened", roughened)
    autoencoder.train(training)
    assert seen and all(deviation == pytest.approx(own) for deviation, own in seen)
    autoencoder.build(training).save_pretrained(tmp_path / "initial")
    seen.clear()
    kept = replace(training, output=tmp_path / "kept", keep_latents=1.0, initial=tmp_path / "initial")
    autoencoder.train(kept)
    assert [deviation for deviation, _ in seen] == [1.0]  # the scale it has and keeps
