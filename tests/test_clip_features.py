"""Clip features: what they must see, on clips they never saw; their network's training; what is refused."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sgi2v.evaluation.baselines import paste, still
from sgi2v.evaluation.clip_features import NUM_FEATURES, ClipFeatures, load_clip_features, seen
from sgi2v.evaluation.distances import frechet_distance, is_singular, kernel_distance
from sgi2v.evaluation.extractors import Extractor
from sgi2v.training.checkpoint import Stopped
from sgi2v.training.clip_features import SPOILINGS, ClipFeaturesTraining, spoil, train
from sgi2v.world import Clip, World

NUM = 72


@pytest.fixture(scope="module")
def extractor() -> ClipFeatures:
    return load_clip_features()


@pytest.fixture(scope="module")
def clips() -> tuple[list[Clip], list[Clip]]:
    """Two sets of held-out clips of the size that the bundled model makes."""
    world = World(width=64, num_things=1, num_frames=8, held_out=True, still=0.0)
    first, second = (world.render(NUM, seed) for seed in (11, 12))
    return [first[index] for index in range(NUM)], [second[index] for index in range(NUM)]


def features(extractor: ClipFeatures, clips: list[Tensor]) -> Tensor:
    """Features of many clips of one size: what `extractor.features` gives one by one, and quicker."""
    with torch.no_grad():
        return torch.cat([extractor.network(seen(part)) for part in torch.stack(clips).split(24)])


@pytest.fixture(scope="module")
def reference(extractor: ClipFeatures, clips: tuple[list[Clip], list[Clip]]) -> Tensor:
    return features(extractor, [clip.frames for clip in clips[0]])


@pytest.fixture(scope="module")
def true(extractor: ClipFeatures, clips: tuple[list[Clip], list[Clip]]) -> Tensor:
    return features(extractor, [clip.frames for clip in clips[1]])


def blurred(frames: Tensor, sigma: float) -> Tensor:
    pictures = [cv2.GaussianBlur(frame.permute(1, 2, 0).numpy(), (0, 0), sigma) for frame in frames]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def noised(frames: Tensor, deviation: float) -> Tensor:
    noise = np.random.default_rng(0).normal(size=tuple(frames.shape)).astype(np.float32)
    return (frames + deviation * torch.from_numpy(noise)).clamp(0, 1)


def frozen(frames: Tensor, share: float) -> Tensor:
    """The last share of frames 1 and later show what was there before them."""
    last = len(frames) - 1 - round(share * (len(frames) - 1))
    return frames[torch.arange(len(frames)).clamp(max=last)]


def shuffled(frames: Tensor, share: float) -> Tensor:
    """A share of the frames change places, other ones in every clip."""
    generator = np.random.default_rng(int(1000 * float(frames.sum())))
    moved = generator.permutation(len(frames))[: round(share * len(frames))]
    order = np.arange(len(frames))
    order[moved] = np.roll(moved, 1)
    return frames[torch.from_numpy(order)]


@pytest.mark.parametrize(
    ("spoilt", "strengths"),
    [
        (blurred, (0.7, 1.0, 1.5, 2.5)),
        (noised, (0.04, 0.08, 0.16)),
        (frozen, (0.15, 0.3, 0.6)),
        (shuffled, (0.25, 0.5, 1.0)),
    ],
)
def test_distance_rises_with_every_strength(
    extractor: ClipFeatures,
    clips: tuple[list[Clip], list[Clip]],
    reference: Tensor,
    true: Tensor,
    spoilt: Callable[[Tensor, float], Tensor],
    strengths: tuple[float, ...],
) -> None:
    rows = [true]
    rows += [features(extractor, [spoilt(clip.frames, strength) for clip in clips[1]]) for strength in strengths]
    for distance in (frechet_distance, kernel_distance):
        found = [distance(reference, part) for part in rows]
        assert all(after > before for before, after in pairwise(found)), found
        assert found[-1] > 5 * found[0], found


def test_true_clips_are_near_pasted_ones_next_and_still_ones_far(
    extractor: ClipFeatures, clips: tuple[list[Clip], list[Clip]], reference: Tensor, true: Tensor
) -> None:
    assert not is_singular(reference, true)
    pasted = [paste(clip.frames[0], clip.boxes, clip.masks[:, 0]) for clip in clips[1]]
    stays = [still(clip.frames[0], 8) for clip in clips[1]]
    near = frechet_distance(reference, true)
    dragged, fixed = (frechet_distance(reference, features(extractor, part)) for part in (pasted, stays))
    # Upright things on a smooth ground are what pasting does right: it may come out as good as the truth.
    assert 0.8 * near < dragged < 3 * near
    # Less than clips that stop half way (102 against 54 when this was written), but far from every true one.
    assert fixed > 5 * near and fixed > 3 * dragged
    # Sixty-four features of unit variance: the truth is near, measured by its own spread.
    assert near < 0.2 * NUM_FEATURES


def test_any_size_and_number_of_frames(extractor: ClipFeatures) -> None:
    assert isinstance(extractor, Extractor) and extractor.name == "sgi2v-clip-64" and extractor.unit == "clip"
    assert len(extractor.sha256) == 64
    frames = World(width=128, num_frames=14).render(1, 3).frames[0]
    plain = extractor.features(frames)
    assert plain.shape == (1, NUM_FEATURES) and plain.dtype == torch.float32
    assert torch.allclose(plain, features(extractor, [frames]), atol=1e-4)
    large = torch.nn.functional.interpolate(frames, scale_factor=3, mode="bilinear")
    scale = float((plain - extractor.features(frames.flip(0))).norm())
    assert float((extractor.features(large) - plain).norm()) < 0.3 * scale
    for num in (1, 3, 40):
        assert extractor.features(torch.rand(num, 3, 20, 30)).isfinite().all()


def test_what_the_network_sees() -> None:
    frames = torch.arange(14.0).view(14, 1, 1, 1).expand(-1, 3, 64, 64) / 14
    shown = seen(frames)
    assert (shown[:, 0, 0, 0] * 14).round().tolist() == [0, 2, 4, 6, 7, 9, 11, 13]
    assert seen(frames[:3]).shape == (8, 3, 64, 64)
    assert torch.equal(seen(frames[None].expand(2, -1, -1, -1, -1))[1], shown)


@pytest.mark.parametrize("kind", SPOILINGS)
def test_training_clips_are_spoilt_more_by_more(kind: str) -> None:
    frames = World(width=64, num_frames=8, kind="rich", still=0.0).render(1, 4).frames[0]
    changes = []
    for strength in (0.0, 0.5, 1.0):
        found = spoil(frames, kind, strength, torch.Generator().manual_seed(0))
        assert found.shape == frames.shape and found.isfinite().all()
        changes.append(float((found - frames).abs().mean()))
    assert 0 < changes[0] < changes[2] and changes[1] < changes[2]


@pytest.mark.long
def test_trains_resumes_and_writes_what_is_read(tmp_path: Path) -> None:
    def training(folder: str) -> ClipFeaturesTraining:
        return ClipFeaturesTraining(
            output=tmp_path / folder,
            num_steps=22,
            batch_size=2,
            pool_size=4,
            num_warmup=5,
            checkpoint_every=10,
            dtype="float32",
        )

    network = train(training("whole"))
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(value.dtype == torch.float16 for value in whole.values())

    def interrupt(figures: Mapping[str, float]) -> None:
        if figures["step"] == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(training("cut"), log=interrupt)
    with pytest.raises(ValueError, match=r"seed: the checkpoint .* was trained with 0, not 1"):
        train(replace(training("cut"), seed=1))
    with pytest.raises(Stopped, match="after step 11 of 22"):
        train(training("cut"), stop=lambda: True)
    train(training("cut"))
    again = load_file(tmp_path / "cut" / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    extractor = load_clip_features(tmp_path / "cut" / "model.safetensors")
    assert extractor.features(World(width=64, num_frames=8).render(1, 0).frames[0]).isfinite().all()


def test_bad_settings_and_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_steps"):
        ClipFeaturesTraining(output=tmp_path, num_steps=0)
    with pytest.raises(ValueError, match="clean"):
        ClipFeaturesTraining(output=tmp_path, clean=1.5)
    with pytest.raises(ValueError, match="known are blur"):
        spoil(torch.zeros(8, 3, 16, 16), "nonsense", 0.5, torch.Generator())
    save_file({"out.bias": torch.zeros(64)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: not the weights of the clip network"):
        load_clip_features(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="SHA-256"):
        load_clip_features(sha256="0" * 64)
