"""What is said of a training on its way: samples and control from the averaged weights, an autoencoder's fidelity."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sgi2v.cli import main
from sgi2v.training.autoencoder import build as build_autoencoder
from sgi2v.training.autoencoder_fields import AutoencoderTraining
from sgi2v.training.checkpoint import save_checkpoint
from sgi2v.training.feed import Feeder
from sgi2v.training.fidelity import measure_autoencoder, roughness
from sgi2v.training.networks import build, load_autoencoder
from sgi2v.training.optimiser import MasterAdam
from sgi2v.training.stages import DenoiserTraining, Stage
from sgi2v.training.validation import validation_loss
from sgi2v.training.watch import PeriodicEvaluation
from sgi2v.world.draws import normal, seed_of


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    training = AutoencoderTraining(output=folder, channels=(32, 32, 32, 32), latent_channels=4)
    build_autoencoder(training).save_pretrained(folder)
    return folder


@pytest.mark.long
def test_a_watcher_shows_what_the_averaged_weights_draw(autoencoder: Path, tmp_path: Path) -> None:
    """At its steps alone: a sheet, distances without and with control, the probe; the weights are not touched."""
    settings = tmp_path / "sgi2v.json"
    settings.write_text(
        json.dumps({"num_steps": 2, "recommended": {"sg-i2v": {"guided": [20.0, 90.0], "iterations": 1}}})
    )
    training = DenoiserTraining(
        output=tmp_path,
        autoencoder=autoencoder,
        settings=settings,
        stages=(Stage(num_steps=4, num_frames=3, batch_size=2, width=64, height=64),),
        channels=(32, 32, 32, 32),
        embedding=32,
        num_frames=3,
        probe_every=4,
        watch_every=2,
        watch_scenes=1,
    )
    models = build(training)
    before = {name: value.clone() for name, value in models.state_dict().items()}
    optimiser, watcher = MasterAdam(models), PeriodicEvaluation(training)
    assert watcher(optimiser, 1) == {} and not (tmp_path / "samples").exists()
    figures = watcher(optimiser, 4)
    assert {"objmc none", "objmc sg-i2v", "probe still", "probe first 2.1 s2"} <= figures.keys()
    assert all(value >= 0 for value in figures.values())
    with Image.open(tmp_path / "samples" / "step-000004.png") as sheet:
        assert sheet.size == (5 * 128, 3 * 128)  # five frames twice as large; true, without, with
    assert all(torch.equal(value, before[name]) for name, value in models.state_dict().items())
    with pytest.raises(ValueError, match=r"settings: .* cannot be read"):
        PeriodicEvaluation(replace(training, settings=tmp_path / "none.json"))


@pytest.mark.long
def test_validation_is_the_loss_of_the_same_held_out_clips_at_every_call(autoencoder: Path, tmp_path: Path) -> None:
    """A network that says nothing has the mean square of what it should say; other training seeds change nothing."""
    stage = Stage(num_steps=4, num_frames=3, batch_size=2, width=64, height=64)
    training = DenoiserTraining(
        output=tmp_path,
        autoencoder=autoencoder,
        stages=(stage,),
        channels=(32, 32, 32, 32),
        embedding=32,
        num_frames=3,
        validate_every=2,
        probe_every=0,
        dtype="float32",
    )
    models, vae = build(training), load_autoencoder(autoencoder)
    found = validation_loss(models, vae, training, stage, num=2, kinds=("rich",), levels=(0.5, 4.0))
    other = replace(training, seed=9, image_dropout=1.0, motion_jitter=50.0)
    assert found == validation_loss(models, vae, other, stage, num=2, kinds=("rich",), levels=(0.5, 4.0))
    rich = replace(training, seed=4242, pool_steps=1, stages=(replace(stage, batch_size=1, rich=1.0),))
    clips = [Feeder(rich, vae, held_out=True)(number).latents for number in range(2)]
    assert not torch.equal(clips[0], Feeder(rich, vae)(0).latents)
    for level in (0.5, 4.0):
        wanted = []
        for number, clean in enumerate(clips):
            noise = normal(clean.shape, seed_of("validation", number, round(1000 * level)), "cpu")
            # v of a clip whose deviation is 1, with the noise written out.
            scale = (1 + level**2) ** 0.5
            wanted.append(float(((noise - level * clean) / scale).square().mean()))
        assert found[f"loss rich s{level:g}"] == pytest.approx(sum(wanted) / 2, rel=1e-4)
    assert validation_loss(models, vae, training, replace(stage, num_frames=1)) == {}
    figures = PeriodicEvaluation(training)(MasterAdam(models), 2)
    assert {f"held-out loss {kind} s9" for kind in ("simple", "rich", "lifelike")} <= figures.keys()


def test_fidelity_is_that_of_what_comes_back(autoencoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_autoencoder(AutoencoderTraining(output=autoencoder, channels=(32, 32, 32, 32), latent_channels=4))
    figures = measure_autoencoder(model, num=4, width=64, height=64)
    assert set(figures) == {f"{a} {b}" for a in ("psnr", "sharpness") for b in ("world", "photographs")}
    assert 0 < figures["psnr photographs"]["value"] < 20  # an untrained one
    assert figures["psnr world"]["low"] <= figures["psnr world"]["value"] <= figures["psnr world"]["high"]
    assert main(["train", "measure", str(autoencoder), "--num", "4", "--width", "64", "--height", "64"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    checks = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).expand(3, 64, 64).float()
    assert roughness(checks) == 2.0 and roughness(0.5 * checks) == 1.0 and roughness(torch.ones(3, 8, 8)) == 0.0


def test_a_checkpoint_is_packed_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path / "run", MasterAdam(torch.nn.Linear(3, 2)), 7)
    assert main(["train", "pack", str(tmp_path / "run"), str(tmp_path / "packed"), "--moments"]) == 0
    (name,) = capsys.readouterr().out.split()
    assert Path(name).is_file() and Path(name).parent == tmp_path / "packed"
    assert main(["train", "pack", str(tmp_path / "nothing"), str(tmp_path / "packed")]) == 2
    assert "train first" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_never_waits_for_the_device(autoencoder: Path, tmp_path: Path) -> None:
    """Within a pool, between two lines of the log: nothing is read back, nothing copied from pageable memory."""
    from sgi2v.training.correspondence import TaughtAttention
    from sgi2v.training.denoiser import Drawn, loss_of
    from sgi2v.training.feed import Feeder
    from sgi2v.training.networks import load_autoencoder

    training = DenoiserTraining(
        output=tmp_path,
        autoencoder=autoencoder,
        stages=(Stage(num_steps=4, num_frames=3, batch_size=2, width=64, height=64),),
        channels=(32, 32, 32, 32),
        embedding=32,
        num_frames=3,
        correspondence=0.1,
        device="cuda",
    )
    models = build(training).to("cuda")
    optimiser = MasterAdam(models)
    models.to(torch.bfloat16).train()
    vae = load_autoencoder(autoencoder).to("cuda", torch.bfloat16)
    feeder = Feeder(training, vae)
    for step in range(3):
        torch.cuda.set_sync_debug_mode("default" if step == 0 else "error")
        try:
            batch = feeder(step)
            drawn = Drawn.of(training, 2, batch.latents.device, step)
            with TaughtAttention(training, models["unet"], batch, step) as taught:
                losses = loss_of(models, batch, drawn)
            missed = taught.loss(drawn.shown[0])
            assert missed is not None
            (losses.mean() + missed).backward()
            optimiser.step(1e-4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(losses.detach()).all()
