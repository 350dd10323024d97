"""What training is fed: every batch a function of its step, and what it says of correspondences is to be seen in it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor
from torch.nn import functional

from sgi2v.training import feed
from sgi2v.training.feed import Batch, Feeder
from sgi2v.training.stages import DenoiserTraining, Stage
from sgi2v.world import Correspondence, LifelikeWorld, World
from sgi2v.world.draws import seed_of


class Means(AutoencoderKLTemporalDecoder):  # type: ignore[misc]
    """An autoencoder whose latents are the mean colours of cells, so that a batch can be looked at."""

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The mean colours, as the real one returns its latents."""
        means = functional.avg_pool2d(x, 8)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: means))


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pool is of clips in which the camera and a large thing move, under a light that stays."""
    world = LifelikeWorld(
        width=128,
        height=64,
        num_things=1,
        radius=(18.0, 28.0),
        camera=1.0,
        still=0.0,
        lighting=0.0,
        shadow=0.0,
    )
    monkeypatch.setattr(feed, "_world", lambda *_, **__: world)


@pytest.fixture(scope="module")
def means() -> Means:
    return Means(
        block_out_channels=(32,),
        down_block_types=("DownEncoderBlock2D",),
        layers_per_block=1,
        scaling_factor=1.0,
    )


def training(tmp_path: Path, num_frames: int, **fields: Any) -> DenoiserTraining:
    stage: dict[str, Any] = {
        "num_steps": 8,
        "num_frames": num_frames,
        "batch_size": 6,
        "width": 128,
        "height": 64,
    }
    stage |= {"lifelike": 1.0, "num_things": 2, "radius": (16.0, 28.0)}
    return DenoiserTraining(
        output=tmp_path,
        autoencoder=tmp_path,
        stages=(Stage(**{**stage, **fields}),),
        noise_aug=(1e-6, 1e-6),
        motion_jitter=0.0,
        pool_steps=4,
    )


def cells_of(found: Correspondence) -> Tensor:
    """The cell of the given picture that holds each point, row by row; the nearest if it is outside."""
    height, width = found.source.shape[2:4]
    column, row = (found.source / found.stride).floor().long().unbind(-1)
    return row.clamp(0, height - 1) * width + column.clamp(0, width - 1)


def differences(batch: Batch, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of cells that were visible: how far they are from their matches in the given picture, from the cells at their
    own place in it, and whether they have moved by more than a cell."""
    found = batch.matches(stride)
    latents = functional.avg_pool2d(batch.latents.flatten(0, 1), stride // 8).unflatten(0, batch.latents.shape[:2])
    given = functional.avg_pool2d(batch.image_latents, stride // 8)
    cells = cells_of(found)
    index = cells.flatten(1)[:, None].expand(-1, given.shape[1], -1)
    matched = given.flatten(2).gather(2, index).unflatten(2, cells.shape[1:]).transpose(1, 2)
    height, width = cells.shape[2:]
    home = torch.arange(height * width).view(height, width)
    moved = ((found.source / stride).floor().long() - torch.stack([home % width, home // width], -1)).abs().amax(-1) > 0
    seen = found.visible > 0.6
    off, still = ((latents - other).abs().mean(2) for other in (matched, given[:, None]))
    return off[seen], still[seen], moved[seen]


@pytest.mark.usefixtures("lively")
@pytest.mark.parametrize("num_frames", [1, 5])
@pytest.mark.parametrize("stride", [8, 16])
def test_matches_lead_to_the_cells_that_show_the_same(
    tmp_path: Path, means: Means, num_frames: int, stride: int
) -> None:
    """In clips that run forth and back, and from any picture of a scene to any other."""
    feeder = Feeder(training(tmp_path, num_frames), means)
    batches = [feeder(step) for step in range(2)]
    assert batches[0].latents.shape == (6, num_frames, 3, 8, 16)
    off, still, moved = (torch.cat(same) for same in zip(*(differences(b, stride) for b in batches), strict=True))
    assert moved.sum() > 30
    # Cells are coarse: nearer, not the same.
    assert off[moved].mean() < 0.75 * still[moved].mean()


@pytest.mark.usefixtures("lively")
def test_the_given_picture_is_the_first_frame_of_clips_that_run_back_too(tmp_path: Path, means: Means) -> None:
    batch = Feeder(training(tmp_path, 4), means)(1)
    assert torch.allclose(batch.image_latents, batch.latents[:, 0], atol=1e-4)
    assert batch.layers is not None and batch.given is not None
    assert torch.equal(batch.given.poses, batch.layers.poses[:, :, :1])
    assert torch.equal(batch.given.masks, batch.layers.masks[:, :, :1])
    found = batch.matches()
    home = torch.arange(8 * 16).view(8, 16).expand(6, -1, -1)
    # In frame 0 every cell is its own match: its middle lies on an edge of pixels, never of cells.
    assert torch.equal(cells_of(found)[:, 0], home)
    # At a clip's start the background is where it is by definition; where the camera moved, not at its end.
    start = (batch.given.poses[:, -1, 0] - torch.eye(2, 3)).abs().amax((1, 2)) < 1e-4
    assert 0 < start.sum() < 6


def test_a_pool_in_parts_is_as_large_and_as_repeatable(
    tmp_path: Path, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = training(tmp_path, 3)
    whole = feed.pool_of(fields, means, fields.stages[0], 0)
    monkeypatch.setattr(feed, "_AT_ONCE", 3 * 128 * 64 * 2)
    parts, again = (feed.pool_of(fields, means, fields.stages[0], 0) for _ in range(2))
    assert len(whole.latents) == len(parts.latents) == 6
    assert torch.equal(parts.latents, again.latents) and torch.equal(parts.images, again.images)
    assert not torch.equal(parts.latents[:2], parts.latents[2:4])
    assert parts.layers is not None and parts.layers.masks.shape == (6, 2, 3, 8, 16)
    assert parts.given.shape == (6, 2, 3, 64, 128)


def test_large_frames_are_encoded_fewer_at_a_time(
    tmp_path: Path, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = torch.rand(2, 5, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []
    encode = means.encode

    def counted(pixels: Tensor) -> Any:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(means, "encode", counted)
    whole = feed._encode(means, frames)
    for pixels in (3 * 64 * 128, 1):
        monkeypatch.setattr(feed, "_ENCODED_PIXELS", pixels)
        assert torch.allclose(feed._encode(means, frames), whole, atol=1e-6)
    assert sizes == [10, 3, 3, 3, 1] + 10 * [1]


def test_pools_show_each_world_by_its_share() -> None:
    stage = Stage(num_steps=1, num_frames=1, batch_size=1, rich=0.5, lifelike=0.4)
    worlds = [feed._world(stage, 0, draw, held_out=False) for draw in (0.1, 0.25, 0.35, 0.55, 0.65, 0.95)]
    assert [world.kind for world in worlds] == ["rich", "rich", "simple", "simple", "lifelike", "lifelike"]
    assert isinstance(worlds[-1], LifelikeWorld) and isinstance(worlds[0], World)
    assert feed._world(replace(stage, lifelike=0.0), 0, 0.999, held_out=False).kind == "simple"


def test_a_calm_stage_shows_lifelike_things_that_slide_and_nothing_else() -> None:
    stage = Stage(num_steps=1, num_frames=6, batch_size=1, width=64, height=64, lifelike=1.0, calm=True)
    world = feed._world(stage, 0, 0.5, held_out=False)
    assert isinstance(world, LifelikeWorld) and world.held_out is False and world.num_things == 1
    calm = replace(world, shadow=0.0, num_frames=6)
    for seed in range(3):
        clip = calm.render(1, seed)[0]
        # Where the thing is in neither frame, the picture does not change.
        boxes = clip.boxes[0].round().long()
        for frame in range(1, len(clip.frames)):
            changed = (clip.frames[frame] - clip.frames[0]).abs().amax(0) > 0.02
            for left, top, right, bottom in (boxes[0].tolist(), boxes[frame].tolist()):
                changed[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
            assert changed.float().mean() < 0.002


def test_each_purpose_has_draws_of_its_own() -> None:
    seeds = {seed_of(purpose, 0, number) for purpose in ("pool", "batch") for number in range(500)}
    assert len(seeds) == 1000 and max(seeds) < 2**32
    assert seed_of("pool", 0, 1) == seed_of("pool", 0, 1) != seed_of("pool", 1, 0)


def test_nobody_knows_the_layers_of_footage(tmp_path: Path, means: Means) -> None:
    batch = replace(Feeder(training(tmp_path, 2, lifelike=0.0), means)(0), layers=None)
    with pytest.raises(ValueError, match="footage"):
        batch.matches()
