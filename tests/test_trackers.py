"""The trackers that carry points, and CoTracker3's adapter."""

import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sgi2v.evaluation.metrics import motion_error
from sgi2v.evaluation.tracker import TemplateTracker, Tracker
from sgi2v.evaluation.trackers import (
    CoTracker3,
    PointsTracker,
    load_cotracker3,
    load_tracker,
)

BOTH = pytest.mark.parametrize("tracker", [PointsTracker(), PointsTracker(dense=True)], ids=["points", "flow"])


def square_clip(path: list[tuple[int, int]], size: int = 16, *, height: int = 64) -> tuple[Tensor, Tensor]:
    """A textured square at each (left, top) of the path over a smooth background, and its first box [1, 4]."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, size // 2, size // 2, generator=generator)
    content = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[0]
    ground = torch.rand(1, 3, 5, 7, generator=generator)
    frames = torch.nn.functional.interpolate(ground, (height, 96), mode="bicubic")[0].clamp(0, 1) * 0.6
    frames = frames.repeat(len(path), 1, 1, 1)
    for frame, (left, top) in zip(frames, path, strict=True):
        frame[:, top : top + size, left : left + size] = content
    left, top = path[0]
    return frames, torch.tensor([[left, top, left + size, top + size]], dtype=torch.float32)


@BOTH
def test_follows_a_square_and_says_how_many_points_survived(tracker: PointsTracker) -> None:
    path = [(12 + 3 * j, 10 + 2 * j) for j in range(8)]
    frames, box = square_clip(path)
    result = tracker.track(frames, box)
    wanted = torch.tensor(path, dtype=torch.float64)[None] + 8
    assert not result.lost.any()
    assert torch.equal(result.centers[:, 0], wanted[:, 0])
    assert (result.centers - wanted).norm(dim=-1).max() < 1.0
    assert result.points is not None and result.points[0, 0] == 1
    assert (result.points.diff(dim=1) <= 0).all() and 0.3 < result.points[0, -1] <= 1
    again = tracker.track(frames, box)
    assert torch.equal(result.centers, again.centers) and torch.equal(result.points, again.points)  # type: ignore[arg-type]


@BOTH
def test_a_thing_that_vanishes_is_lost_held_and_counted(tracker: PointsTracker) -> None:
    path = [(20 + 4 * j, 20) for j in range(7)]
    frames, box = square_clip(path)
    # Noise of its own in every frame: nothing in it comes back.
    frames[4:] = torch.rand(frames[4:].shape, generator=torch.Generator().manual_seed(1))
    result = tracker.track(frames, box)
    assert result.lost[0].tolist() == [False] * 4 + [True] * 3
    assert torch.equal(result.centers[0, 4:], result.centers[0, 3].expand(3, -1))
    assert result.points is not None and float(result.points[0, -1]) < 0.25
    wanted = torch.tensor(path, dtype=torch.float64)[None] + 8
    error = motion_error(wanted, result, width=96, height=64)
    assert error.lost.tolist() == [0.5] and float(error.path_end) > 10


@BOTH
def test_large_frames_several_boxes_and_masks_in_their_own_pixels(tracker: PointsTracker) -> None:
    path = [(12 + 2 * j, 14 + j) for j in range(6)]
    frames, box = square_clip(path)
    large = torch.nn.functional.interpolate(frames, scale_factor=8, mode="bilinear")
    rest = torch.tensor([[500.0, 400.0, 700.0, 500.0]])
    result = tracker.track(large, torch.cat([8 * box, rest]))
    wanted = 8 * (torch.tensor(path, dtype=torch.float64) + 8)
    assert (result.centers[0] - wanted).norm(dim=-1).max() < 8
    assert (result.centers[1] - torch.tensor([600.0, 450.0])).norm(dim=-1).max() < 2
    # Of a box three times too large, what is around the square does not count when a mask says so.
    wide = box + torch.tensor([[-10.0, -10.0, 26.0, 26.0]])
    mask = torch.zeros(64, 96)
    left, top, right, bottom = box[0].int().tolist()
    mask[top:bottom, left:right] = 1
    masked = tracker.track(frames, wide, [mask])
    shift = masked.centers[0] - masked.centers[0, :1]
    assert (shift - (wanted - wanted[:1]) / 8).norm(dim=-1).max() < 1.0
    bare = tracker.track(frames, wide).centers[0]
    assert (bare - bare[:1]).norm(dim=-1).max() < 3.0


@BOTH
def test_no_box_is_no_track_and_a_box_outside_is_refused(tracker: PointsTracker) -> None:
    assert isinstance(tracker, Tracker)
    assert tracker.track(torch.zeros(3, 3, 32, 32), torch.zeros(0, 4)).centers.shape == (0, 3, 2)
    for box in ([4.0, 4.0, 4.0, -9.0], [-9.0, 0.0, -1.0, 5.0]):
        with pytest.raises(ValueError, match=r"boxes\[0\].*no point inside"):
            tracker.track(torch.zeros(2, 3, 32, 32), torch.tensor([box]))
    with pytest.raises(ValueError, match="its mask"):
        tracker.track(torch.zeros(2, 3, 32, 32), torch.tensor([[0.0, 0.0, 9.0, 9.0]]), [torch.zeros(32, 32)])
    with pytest.raises(ValueError, match="side"):
        PointsTracker(side=1)


def test_trackers_by_name() -> None:
    assert load_tracker("template") == TemplateTracker()
    assert load_tracker("points") == PointsTracker() and load_tracker("flow") == PointsTracker(dense=True)
    with pytest.raises(ValueError, match="known are template, points, flow, cotracker3"):
        load_tracker("nonsense")
    with pytest.raises(ValueError, match="cotracker3 needs weights"):
        load_tracker("cotracker3")
    with pytest.raises(ValueError, match="flow takes no weights"):
        load_tracker("flow", Path("x.pth"))


@pytest.mark.skipif(find_spec("cotracker") is not None, reason="the package cotracker is installed")
def test_without_its_package_cotracker_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="facebookresearch/co-tracker"):
        load_tracker("cotracker3", tmp_path / "scaled_offline.pth")


def test_the_real_cotracker() -> None:
    if find_spec("cotracker") is None:
        pytest.skip("the package cotracker is not installed: its adapter runs on a double only")
    from cotracker.predictor import CoTrackerPredictor  # type: ignore[import-not-found, unused-ignore]

    network = CoTrackerPredictor(checkpoint=None, offline=True, v2=False, window_len=60).eval()
    frames, box = square_clip([(12, 10), (14, 11)])
    result = CoTracker3(network=network, sha256="").track(frames, box)
    assert result.centers.shape == (1, 2, 2) and result.centers[0, 0].tolist() == [20.0, 18.0]


class Double(nn.Module):
    """Speaks as CoTrackerPredictor does, and moves every point by its one weight a frame; half are hidden at times."""

    def __init__(self, checkpoint: str | None, offline: bool, v2: bool, window_len: int) -> None:
        super().__init__()
        assert checkpoint is None and offline and not v2 and window_len == 60
        self.model = nn.Linear(1, 2, bias=False)

    def forward(self, video: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Tracks [1, f, p, 2] in pixels, and which points are seen [1, f, p]."""
        assert video.shape[0] == 1 and 100 < float(video.max()) <= 255 and not queries[..., 0].any()
        times = torch.arange(video.shape[1]).view(1, -1, 1, 1)
        tracks = queries[:, None, :, 1:] + times * self.model.weight[:, 0]
        seen = torch.ones(tracks.shape[:3], dtype=torch.bool)
        seen[:, 2] = False
        seen[:, 3, ::2] = False
        return tracks, seen


def test_the_adapter_hands_points_over_and_takes_boxes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, predictor = types.ModuleType("cotracker"), types.ModuleType("cotracker.predictor")
    predictor.CoTrackerPredictor = Double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cotracker", package)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", predictor)
    save_file({"weight": torch.tensor([[3.0], [-1.0]])}, tmp_path / "weights.safetensors")
    tracker = load_tracker("cotracker3", tmp_path / "weights.safetensors")
    assert isinstance(tracker, CoTracker3) and len(tracker.sha256) == 64
    boxes = torch.tensor([[10.0, 20.0, 20.0, 40.0], [30.0, 30.0, 40.0, 40.0]])
    result = tracker.track(torch.rand(5, 3, 48, 64), boxes)
    assert result.centers[0].tolist() == [[15, 30], [18, 29], [18, 29], [24, 27], [27, 26]]
    assert result.centers[1, 4].tolist() == [47, 31]
    assert result.lost[0].tolist() == [False, False, True, False, False]
    assert result.points is not None and result.points[0].tolist() == [1, 1, 0, 0.5, 1]
    assert tracker.track(torch.rand(2, 3, 48, 64), torch.zeros(0, 4)).centers.shape == (0, 2, 2)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: not the weights of CoTracker3, offline"):
        load_cotracker3(tmp_path / "other.safetensors")
