"""A model's folder as Stable Video Diffusion ships it, trained on through the command line, on one's own clips."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline

from sgi2v.backbones import load_backbone
from sgi2v.cli import main
from sgi2v.training import feed, videos
from sgi2v.training.journal import readable
from sgi2v.training.networks import build, load_autoencoder
from sgi2v.training.stages import DenoiserTraining, Stage
from sgi2v.training.videos import Footage, amount_of_motion, check_videos, find_videos
from sgi2v.video import Video
from tiny import tiny_svd
from training_log import history

STAGES = (
    "--stages.0.num-steps 1 --stages.0.batch-size 1 --stages.0.width 64 --stages.0.height 64 "
    "--stages.1.num-steps 2 --stages.1.batch-size 1 --stages.1.width 64 --stages.1.height 64 --stages.1.num-frames 3"
).split()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square that moves right by four pixels a frame: as mp4 and as a folder of frames."""
    folder = tmp_path_factory.mktemp("clips")
    frames = torch.rand(1, 3, 80, 112, generator=torch.Generator().manual_seed(0)).mul(0.3).repeat(6, 1, 1, 1)
    square = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1)).mul(0.5).add(0.5)
    for number, frame in enumerate(frames):
        frame[:, 30:54, 20 + 4 * number : 44 + 4 * number] = square
    Video(frames=frames, fps=7.0).save(folder / "b.mp4")
    Video(frames=frames, fps=7.0).save(folder / "a")
    (folder / "notes.txt").write_text("no clip")
    return folder


def test_own_clips_are_found_and_cut_to_shape(clips: Path, tmp_path: Path) -> None:
    assert [path.name for path in find_videos(clips)] == ["a", "b.mp4"]
    footage = Footage(clips)
    times = torch.linspace(0, 1, 3).expand(4, -1)
    frames, motion = footage.cut(4, 7, width=64, height=64, times=times, num_frames=5)
    again, _ = Footage(clips).cut(4, 7, width=64, height=64, times=times, num_frames=5)
    assert frames.shape == (4, 3, 3, 64, 64) and torch.equal(frames, again)
    assert frames.min() >= 0 and frames.max() <= 1
    # Four pixels a frame over four steps of time, of a frame whose diagonal has 138: the square's part of the picture.
    assert motion.gt(0.05).all() and motion.lt(0.25).all()
    assert amount_of_motion(frames[0, :1].expand(3, -1, -1, -1)) == pytest.approx(0, abs=1e-3)
    assert check_videos(clips) == check_videos(clips)
    with pytest.raises(ValueError, match="holds no clip"):
        find_videos(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        find_videos(tmp_path / "none")


@pytest.mark.long
def test_a_folder_of_svd_is_fine_tuned_from_the_command_line(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attention alone, image encoder frozen, checkpointed: what is written is a model, and the rest as it was."""
    initial, output = tiny_svd(3), tmp_path / "tuned"
    words = ["train", "denoiser", "--initial", str(initial), "--output", str(output), "--videos", str(clips)]
    words += [*STAGES, "--trained", "attention", "--freeze-image-encoder", "--gradient-checkpointing"]
    words += ["--dtype", "float32", "--pool-steps", "1", "--log-every", "1", "--num-frames", "3"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(output / "model")
    before = StableVideoDiffusionPipeline.from_pretrained(initial, dtype=torch.float32)
    after = StableVideoDiffusionPipeline.from_pretrained(output / "model", dtype=torch.float32)
    changed = {
        name
        for name, value in before.unet.state_dict().items()
        if not torch.equal(value.half().float(), after.unet.state_dict()[name])
    }
    assert changed and all(".attentions." in name for name in changed)
    assert any("temporal" in name for name in changed) and any(".attn1.to_q" in name for name in changed)
    for mine, theirs in ((after.vae, before.vae), (after.image_encoder, before.image_encoder)):
        for name, value in theirs.state_dict().items():
            assert torch.equal(value.half().float(), mine.state_dict()[name]), name
    assert after.scheduler.config.sigma_max == before.scheduler.config.sigma_max == 700.0
    assert after.vae.config.scaling_factor == 0.18215 and after.vae.config.force_upcast
    assert load_backbone(output / "model").settings.num_frames == 3
    rows = history(output / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "lr", "clips_per_second", "seconds_left"} <= rows[-1].keys()

    # Finished, it has nothing left to do but to write the model again; other clips are refused.
    (clips / "b.mp4").rename(clips / "c.mp4")
    assert main(words) == 2
    assert "videos: the checkpoint in" in capsys.readouterr().err
    (clips / "c.mp4").rename(clips / "b.mp4")


def test_what_cannot_be_trained_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([], "autoencoder: give its folder"),
        (["--initial", str(tmp_path)], "autoencoder: .* holds none"),
        (["--initial", str(tiny_svd(3)), "--dtype", "bfloat16", "--stages.1.num-frames", "2"], "clips of 2"),
        (["--initial", str(tiny_svd(3)), "--trained", "temporal"], "trained: temporal layers learn nothing"),
        (["--freeze-image-encoder"], "freeze_image_encoder: needs --initial"),
        (
            ["--initial", str(tiny_svd(3)), "--settings", str(tmp_path / "no.json")],
            "settings: .* cannot be read",
        ),
    ):
        assert main(["train", "denoiser", "--output", str(tmp_path / "out"), *words]) == 2
        line = capsys.readouterr().err
        assert re.search(said, line), line


def test_svds_latents_are_scaled_and_its_given_picture_is_not() -> None:
    stages = (Stage(num_steps=1, num_frames=3, batch_size=1, width=64, height=64),)
    training = DenoiserTraining(
        output=Path("none"), initial=tiny_svd(3), stages=stages, noise_aug=(1e-6, 1e-6), num_frames=3
    )
    batch = feed.Feeder(training, load_autoencoder(training.autoencoder_folder))(0)
    assert batch.latents.shape[2] == 4
    assert torch.allclose(batch.image_latents * 0.18215, batch.latents[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("trained", "some", "none"),
    [("attention", "down_blocks.0.attentions.0.proj_in", "conv_in"), ("temporal", "time_mixer", "conv_out")],
)
def test_what_learns_is_a_field(trained: str, some: str, none: str) -> None:
    training = DenoiserTraining(
        output=Path("none"),
        initial=tiny_svd(3),
        stages=(Stage(num_steps=1, num_frames=3, batch_size=1),),
        trained=trained,  # type: ignore[arg-type]
    )
    unet = build(training)["unet"]
    learning = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert any(some in name for name in learning) and not any(name.startswith(none) for name in learning)


def test_a_log_is_read_as_one_run_and_by_a_person(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 2, "objmc none": 9.0}]
    lines += [{"step": 3, "loss": 3.0}, {"step": 2, "loss": 4.5}]  # killed at 3, and gone on from 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    assert [(row["step"], row.get("loss")) for row in history(file)] == [
        (1, 5.0),
        (2, 4.0),
        (2, None),
        (2, 4.5),
    ]
    assert readable({"step": 20, "loss": 0.12345, "seconds_left": 600.0}) == "step 20  loss 0.1235  10 min left"


def test_a_bad_clip_is_named_before_the_training(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(clips, folder)
    (folder / "._b.mp4").write_bytes(b"what a Mac leaves beside a file")
    assert check_videos(folder) == check_videos(clips)
    (folder / "c.mp4").write_bytes((folder / "b.mp4").read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"video: .*c\.mp4"):
        check_videos(folder)


def test_few_clips_are_held_and_the_cuts_stay_the_same(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = torch.linspace(0, 1, 3).expand(8, -1)
    whole = Footage(clips)
    cuts, _ = whole.cut(8, 7, width=64, height=64, times=times, num_frames=5)
    assert len(whole._decoded) == 2 and all(held.dtype == np.uint8 for held in whole._decoded.values())
    monkeypatch.setattr(videos, "_KEPT_BYTES", 6 * 80 * 112 * 3)  # one of them
    sparing = Footage(clips)
    again, _ = sparing.cut(8, 7, width=64, height=64, times=times, num_frames=5)
    assert len(sparing._decoded) == 1 and torch.equal(cuts, again)
