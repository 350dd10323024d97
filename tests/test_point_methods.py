"""Points of a scene, and the two methods that are given them: Wan-Move and ATI, against literal twins."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import contract
from sgi2v import Sampling, generate, load_backbone, replay
from sgi2v.backbones.registry import outline_of
from sgi2v.controllers.ati import ATI, splatted
from sgi2v.controllers.base import Controller
from sgi2v.controllers.wan_move import WanMove, copied
from sgi2v.errors import FieldError
from sgi2v.grid import Grid, tracks_of
from sgi2v.pipeline import plan
from sgi2v.points import Points, points_of
from sgi2v.run import Run
from tiny_dit import save_wan

GRID = Grid(width=96, height=64, num_frames=9, stride=8, frame_stride=4, channels=5)
SMALL = Sampling(seed=1, num_steps=2, width=96, height=64, num_frames=9)


def wandering(seed: int, count: int) -> Points:
    """Points that start anywhere, some outside, and wander, seen or not."""
    draws = np.random.default_rng(seed)
    start = draws.uniform(-10, 110, (1, count, 2)) * (1, 0.7)
    places = (start + np.cumsum(draws.normal(0, 6, (GRID.num_frames, count, 2)), axis=0)).astype(np.float32)
    inside = (places >= 0).all(-1) & (places[..., 0] < GRID.width) & (places[..., 1] < GRID.height)
    return Points(places=places, visible=inside & (draws.random(inside.shape) < 0.8))


def test_points_lie_on_the_thing_and_go_with_its_box() -> None:
    tracks = tracks_of(contract.scene(), GRID)
    points = points_of(tracks, GRID, 8)
    assert points.places.dtype == np.float32 and points.places.shape[0] == GRID.num_frames
    boxes = np.stack([track.boxes for track in tracks.tracks])
    owner = [
        [k for k in range(len(boxes)) if _inside(p, boxes[k, 0])] for p in points.places[0]
    ]  # fmt: skip
    assert all(owner) and {k for found in owner for k in found} == {0, 1}
    for index, found in enumerate(owner):
        assert any(all(_inside(points.places[f, index], boxes[k, f]) for f in range(GRID.num_frames)) for k in found)
    x, y = points.places[..., 0], points.places[..., 1]
    assert (points.visible == ((x >= 0) & (x < 96) & (y >= 0) & (y < 64))).all()
    assert points_of(tracks, GRID, 500).places.shape[1] == 2, "a thing that the lattice misses gets its middle"
    nobody = points_of(replace(tracks, tracks=()), GRID, 8)
    assert nobody.places.shape == (GRID.num_frames, 0, 2)


def _inside(place: Any, box: Any) -> bool:
    return bool(box[0] - 1e-3 <= place[0] <= box[2] + 1e-3 and box[1] - 1e-3 <= place[1] <= box[3] + 1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_latents_are_copied_as_in_a_loop(seed: int) -> None:
    points, latents = wandering(seed, 40), torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(seed))
    order = np.random.default_rng(seed).permutation(40)
    twin = latents.clone()
    for point in order:
        for k in range(1, 3):
            if not (points.visible[0, point] and points.visible[4 * k, point]):
                continue
            (x0, y0), (x, y) = points.places[0, point], points.places[4 * k, point]
            twin[k, :, int(y // 8), int(x // 8)] = latents[0, :, int(y0 // 8), int(x0 // 8)]
    after = copied(latents, points, GRID, order)
    assert torch.equal(after, twin) and not torch.equal(after, latents)
    assert torch.equal(copied(latents, wandering(seed, 0), GRID, order[:0]), latents)


def _bilinear(latents: Tensor, u: float, v: float) -> Tensor:
    """The latents at (u, v) in -1..1 of the picture, corners of cells at the ends, zeros outside."""
    x, y = ((u + 1) * 12 - 1) / 2, ((v + 1) * 8 - 1) / 2
    total = torch.zeros(5)
    for i in (math.floor(x), math.floor(x) + 1):
        for j in (math.floor(y), math.floor(y) + 1):
            if 0 <= i < 12 and 0 <= j < 8:
                total += (1 - abs(x - i)) * (1 - abs(y - j)) * latents[:, j, i]
    return total


@pytest.mark.parametrize("count", [1, 2, 7])
def test_features_are_splatted_as_in_a_loop(count: int) -> None:
    points, latents = wandering(9, count), torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 4, 8, 12)
    mask[0] = 1
    twin, known = latents.clone(), mask.clone()
    for k in range(1, 3):
        for row in range(8):
            for column in range(12):
                cell = (-1.5 + 3 * column / 11, -1 + 2 * row / 7)
                weights = []
                for p in range(count):
                    frames = range(4 * k - 3, 4 * k + 1)
                    seen = [float(points.visible[f, p]) for f in frames]
                    place = [
                        sum(
                            s * (2 * float(points.places[f, p, a]) / 64 - (1.5, 1)[a])
                            for s, f in zip(seen, frames, strict=True)
                        ) / (sum(seen) + 1e-5)
                        for a in (0, 1)
                    ]  # fmt: skip
                    distance = sum((cell[a] - place[a]) ** 2 for a in (0, 1))
                    weights.append((math.exp(-220 * distance) * min(sum(seen), 1), p))
                best = sorted(weights, reverse=True)[:2]
                total = sum(weight for weight, _ in best)
                mixed = latents[k, :, row, column] * (1 - min(total, 1))
                for weight, p in best:
                    u, v = (2 * float(points.places[0, p, a]) / (96, 64)[a] - 1 for a in (0, 1))
                    mixed = mixed + weight * _bilinear(latents[0], min(max(u, -1), 1), min(max(v, -1), 1))
                twin[k, :, row, column], known[k, :, row, column] = mixed, total
    after, told = splatted(latents, mask, points, GRID)
    assert torch.allclose(after, twin, atol=2e-5) and torch.allclose(told, known, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan 2.1 that says it was trained for Wan-Move."""
    folder = tmp_path_factory.mktemp("models") / "tiny-wan-move"
    save_wan(folder, "i2v-14b")
    return folder


@pytest.mark.parametrize("controller", [WanMove(), ATI(any_weights=True, spacing=16)], ids=["wan-move", "ati"])
def test_a_run_is_steered_and_its_record_makes_it_again(folder: Path, controller: Controller[Any]) -> None:
    backbone = load_backbone(folder, device="cpu", dtype="float32")
    video = generate(contract.scene("a ball"), backbone=backbone, controller=controller, sampling=SMALL)
    plain = generate(contract.scene("a ball"), backbone=backbone, controller=Controller(), sampling=SMALL)
    assert not torch.equal(video.frames, plain.frames) and video.run is not None
    assert torch.equal(replay(Run.from_dict(video.run), backbone=backbone).frames, video.frames)


def test_the_unconditional_branch_may_see_the_picture_alone(folder: Path) -> None:
    backbone = load_backbone(folder, device="cpu", dtype="float32")
    frames = [
        generate(
            contract.scene(), backbone=backbone, controller=WanMove(unconditional=way), sampling=SMALL
        ).frames
        for way in ("release", "plain")
    ]  # fmt: skip
    assert not torch.equal(*frames)
    alone = backbone.with_settings(replace(backbone.settings, guidance_scale=1.0))
    without = [
        generate(contract.scene(), backbone=alone, controller=WanMove(unconditional=way), sampling=SMALL).frames
        for way in ("release", "plain")
    ]  # fmt: skip
    assert torch.equal(*without), "without guidance there is no such branch"


def test_other_weights_are_refused_before_any_is_read(folder: Path, tmp_path: Path) -> None:
    outline = outline_of(folder)
    with pytest.raises(FieldError, match="trained for ati"):
        plan(contract.scene(), outline, controller=ATI(), sampling=SMALL)
    said = outline.with_settings(replace(outline.settings, trained_for="ati"))
    plan(contract.scene(), said, controller=ATI(), sampling=SMALL)
    save_wan(tmp_path / "clean", "ti2v-5b")
    sampling = replace(SMALL, width=96, height=64)
    for other in (tmp_path / "clean", "bundled"):
        with pytest.raises(FieldError, match="is not given"):
            plan(contract.scene(), outline_of(other), controller=WanMove(any_weights=True), sampling=sampling)
