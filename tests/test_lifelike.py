"""The lifelike world: what is said of its clips is what can be seen in them, to the pixel."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sgi2v.world import Clips, Correspondence, LifelikeWorld, lifelike, pictures, scenery, sprites, textures
from sgi2v.world.layers import apply, compose, inverse, similarity
from sgi2v.world.motion import eased
from sgi2v.world.paint import paint

SMALL = LifelikeWorld(width=96, height=64, radius=(9.0, 20.0), num_frames=4)
CLEAR = replace(SMALL, shadow=0.0, blurred=0.0, lighting=0.0, still=0.0)
"""What is seen of a point is the same in every frame."""
QUIET = replace(CLEAR, camera=0.0)


def disagreement(clips: Clips, found: Correspondence) -> tuple[float, float, float]:
    """Share of pixels that were visible; their mean difference from frame 0 warped; the same for frame 0 unwarped."""
    times, height, width = clips.frames.shape[1], *clips.frames.shape[-2:]
    grid = 2 * found.source / torch.tensor([width, height]) - 1
    warped = functional.grid_sample(
        clips.frames[:, 0], grid.flatten(1, 2), padding_mode="border", align_corners=False
    ).unflatten(2, (times, height))
    off = (warped.transpose(1, 2) - clips.frames).abs().mean(2)
    still = (clips.frames[:, :1] - clips.frames).abs().mean(2)
    seen = found.visible > 0.98
    return float(seen.float().mean()), float(off[seen].mean()), float(still[seen].mean())


@pytest.mark.parametrize("fields", [{}, {"camera": 1.0, "cut": 0.0}, {"cut": 1.0, "held_out": True}])
def test_the_field_leads_each_visible_pixel_back_to_where_it_was(fields: dict[str, float]) -> None:
    clips = replace(CLEAR, **fields).render(8, 4)  # type: ignore[arg-type]
    found = clips.correspondence()
    share, off, still = disagreement(clips, found)
    # A first frame is made of whole pixels, so later ones are samples of it, and nothing is left but rounding.
    assert share > 0.6 and off < 5e-4 and still > 0.01
    # A field that is a little wrong is seen to be wrong, and so is one that takes what was hidden for visible.
    shifted = replace(found, source=found.source + 0.25)
    careless = replace(found, visible=clips.layers.masks.amax(1))
    for wrong in (shifted, careless):
        assert disagreement(clips, wrong)[1] > 10 * 5e-4


def test_the_field_of_the_frame_itself_is_where_the_pixels_are() -> None:
    clips = SMALL.render(3, 5)
    for frame in (0, 3):
        found = clips.correspondence(frame)
        x, y = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(64) + 0.5, indexing="xy")
        assert (found.source[:, frame] - torch.stack([x, y], -1)).abs().max() < 1e-3
        assert found.visible[:, frame].mean() > 0.95


def test_the_field_over_cells_is_that_of_their_middles() -> None:
    clips = CLEAR.render(6, 8)
    fine, coarse = clips.correspondence(), clips.layers.pooled(8).correspondence()
    assert coarse.source.shape == (6, 4, 8, 12, 2) and coarse.stride == 8
    # The middle of a cell is the corner of four pixels.
    corners = [fine.source[:, :, 3 + dy :: 8, 3 + dx :: 8] for dy in (0, 1) for dx in (0, 1)]
    masks = clips.layers.masks
    pure = (functional.avg_pool2d(masks.flatten(0, 2)[:, None], 8).unflatten(0, masks.shape[:3])[:, :, :, 0]).amax(1)
    alone = pure > 0.999
    assert alone.float().mean() > 0.3
    assert (torch.stack(corners).mean(0) - coarse.source).norm(dim=-1)[alone].max() < 1e-2
    with pytest.raises(ValueError, match="stride"):
        clips.layers.pooled(10)


@pytest.mark.long
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**40), held_out=st.booleans(), num=st.integers(1, 3))
def test_clips_are_in_range_repeatable_and_differ(seed: int, held_out: bool, num: int) -> None:
    chosen = replace(SMALL, held_out=held_out, num_things=num, num_frames=2)
    clips, again, other = chosen.render(2, seed), chosen.render(2, seed), chosen.render(2, seed + 1)
    assert torch.equal(clips.frames, again.frames) and torch.equal(clips.boxes, again.boxes)
    assert not torch.equal(clips.frames, other.frames)
    assert clips.frames.shape == (2, 2, 3, 64, 96) and clips.masks.shape == (2, num, 2, 64, 96)
    assert clips.frames.min() >= 0 and clips.frames.max() <= 1
    assert clips.layers.masks.min() >= 0
    assert torch.allclose(clips.layers.masks.sum(1), torch.ones(2, 2, 64, 96), atol=1e-5)
    assert clips.masks.sum(1).max() <= 1 + 1e-5
    assert 0 <= clips[1].motion_bucket <= 255
    for value in (clips.frames, clips.boxes, clips.layers.poses, clips.camera):
        assert torch.isfinite(value).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**40), cut=st.sampled_from([0.0, 1.0]))
def test_boxes_bound_masks_and_things_alone_fill_them(seed: int, cut: float) -> None:
    clips = replace(CLEAR, cut=cut, passing=0.0, occluder=0.0, num_things=1).render(3, seed)
    for mask, box in zip(clips.masks.flatten(0, 2), clips.boxes.flatten(0, 2), strict=True):
        inside = mask > 0.55
        rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        edge = torch.tensor([0.0, 0.0, 96.0, 64.0])
        within = torch.stack([box[:2].clamp(min=0), torch.minimum(box[2:], edge[2:])]).flatten()
        assert (seen - within).abs().max() < 3.0
        # Nothing of the mask lies beyond the box.
        assert (seen[:2] > box[:2] - 1.5).all() and (seen[2:] < box[2:] + 1.5).all()


def test_of_a_still_clip_nothing_changes_and_it_says_so() -> None:
    clips = replace(SMALL, still=1.0).render(4, 1)
    assert torch.equal(clips.frames, clips.frames[:, :1].expand_as(clips.frames))
    assert clips.motion.abs().max() == 0 and clips[0].motion_bucket == 0
    found = clips.correspondence()
    assert (found.source - found.source[:, :1]).abs().max() < 1e-3


def test_thing_0_moves_and_the_others_stay_where_they_are_told_to() -> None:
    clips = replace(QUIET, moving_others=0.0, passing=0.0).render(6, 2)
    moved = (clips.centers - clips.centers[:, :, :1]).norm(dim=-1).amax(2)
    assert (moved[:, 0] > 5).all() and (moved[:, 1:] == 0).all()
    assert torch.equal(clips.motion > 0, torch.ones(6, dtype=torch.bool))


def test_things_come_in_and_leave_and_are_hidden_by_others() -> None:
    clips = replace(CLEAR, moving_others=1.0, passing=0.5, num_frames=3).render(16, 3)
    area = clips.masks.sum((3, 4))
    assert (area[:, 0, 0] > 0).all()
    assert ((area[:, 1:, 0] == 0) & (area[:, 1:, 2] > 0)).any()
    assert ((area[:, :, 0] > 0) & (area[:, :, 2] == 0)).any()
    hiding = replace(QUIET, occluder=1.0, passing=0.0, cut=0.0, num_frames=9).render(8, 3)
    area = hiding.masks[:, 0].sum((2, 3))
    assert (area.amin(1) < 0.8 * area.amax(1)).float().mean() > 0.4


def test_the_camera_is_where_it_is_said_to_be() -> None:
    clips = replace(SMALL, camera=1.0, still=0.0).render(12, 6)
    view = clips.layers.poses[:, -1]
    middle = torch.tensor([48.0, 32.0])
    assert torch.allclose(view[:, 0], torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(12, 2, 3), atol=1e-5)
    # The point of the scene that is said to be in the middle is there, and scaled as said.
    assert (apply(view, clips.camera[..., :2] + middle) - middle).abs().max() < 1e-2
    size = (view[..., 0, 0] * view[..., 1, 1] - view[..., 0, 1] * view[..., 1, 0]).sqrt()
    assert torch.allclose(size, clips.camera[..., 2], atol=1e-5)
    assert (clips.camera[:, -1, :2].norm(dim=-1) > 1).any() and (clips.camera[:, -1, 2] != 1).any()
    assert (view[:, -1, 0, 1].abs() > 0.01).any()
    quiet = replace(SMALL, camera=0.0).render(4, 6)
    assert torch.equal(quiet.camera[..., 2], torch.ones(4, 4)) and quiet.camera[..., :2].abs().max() == 0


def test_a_photograph_is_whole_until_something_in_it_moves() -> None:
    """Hole and thing together are the picture; where the thing was, something else appears."""
    chosen = replace(QUIET, cut=1.0, num_things=1, passing=0.0, turning=0.0, num_frames=3)
    generator = torch.Generator().manual_seed(0)
    canvas = torch.rand(4, 3, 8, 12, generator=generator)
    canvas = functional.interpolate(canvas, (64 + 2 * 19, 96 + 2 * 29), mode="nearest")
    cast = lifelike._cast(chosen, canvas, torch.zeros(4, dtype=torch.bool), generator)
    assert cast.is_cut.all()
    scene = scenery.scenery(canvas, cast, 52, generator, held_out=False)
    look = lifelike._look(chosen, 4, torch.zeros(4, dtype=torch.bool), generator)
    clips = paint(cast, look, scene, torch.tensor([[0.0, 1.0]]).expand(4, -1), (64, 96), "cpu")
    whole = canvas[:, :, 19:-19, 29:-29]
    assert (clips.frames[:, 0] - whole).abs().max() < 0.03
    left = (clips.masks[:, 0, 0] > 0.99) & (clips.masks[:, 0, 1] < 0.01)
    assert left.sum() > 200
    changed = (clips.frames[:, 1] - whole).abs().mean(1)[left]
    assert changed.mean() > 0.1 and (changed > 0.05).float().mean() > 0.5


def test_what_is_in_a_clip_does_not_depend_on_the_times_it_is_looked_at() -> None:
    whole = replace(SMALL, num_frames=5).render(4, 3)
    middle = replace(SMALL, num_frames=5).render(4, 3, times=torch.full((4, 1), 0.5))
    assert torch.allclose(whole.frames[:, 2], middle.frames[:, 0], atol=1e-4)
    assert torch.allclose(whole.boxes[:, :, 2], middle.boxes[:, :, 0], atol=1e-3)
    assert torch.equal(whole.motion, middle.motion)


def test_shadows_light_and_blur_change_the_picture_and_nothing_else() -> None:
    plain = replace(QUIET, cut=0.0).render(6, 9)
    for field in ("shadow", "lighting", "blurred"):
        other = replace(QUIET, cut=0.0, **{field: 1.0}).render(6, 9)  # type: ignore[arg-type]
        assert not torch.allclose(other.frames, plain.frames, atol=0.01), field
        if field != "blurred":
            assert torch.equal(other.layers.masks, plain.layers.masks), field
        # A first frame is neither blurred nor lit otherwise.
        if field != "shadow":
            assert torch.allclose(other.frames[:, 0], plain.frames[:, 0], atol=1e-5), field
    # A shadow darkens.
    dark = replace(QUIET, cut=0.0, shadow=1.0).render(6, 9)
    assert (dark.frames <= plain.frames + 1e-5).all()


def test_training_and_held_out_share_nothing() -> None:
    assert not set(pictures.MORE_TRAINING_PHOTOGRAPHS) & set(pictures.MORE_HELD_OUT_PHOTOGRAPHS)
    assert set(pictures.HELD_OUT_PHOTOGRAPHS) <= set(pictures.MORE_HELD_OUT_PHOTOGRAPHS)
    assert not torch.equal(SMALL.render(1, 7).frames, replace(SMALL, held_out=True).render(1, 7).frames)
    u, v = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9), indexing="xy")

    def seen(held_out: bool) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return sprites._patterns(u.expand(40, 9, 9), v.expand(40, 9, 9), generator, held_out=held_out)

    # The same draws make other patterns, in every one of them.
    assert ((seen(False) - seen(True)).abs().amax((1, 2, 3)) > 0.01).all()
    training, held_out = textures.atlas(False, "cpu"), textures.atlas(True, "cpu")
    assert len(training.sizes) == len(pictures.MORE_TRAINING_PHOTOGRAPHS)
    assert len(held_out.sizes) == len(pictures.MORE_HELD_OUT_PHOTOGRAPHS)


def test_the_atlas_shows_each_photograph_at_every_size() -> None:
    source = textures.atlas(False, "cpu")
    for number, name in enumerate(pictures.MORE_TRAINING_PHOTOGRAPHS):
        expected = pictures.photograph(name, 480)
        width = expected.shape[2]
        assert source.sizes[number].tolist() == [width, 480]
        x, y = torch.meshgrid(torch.arange(40.0) + 20.5, torch.arange(30.0) + 50.5, indexing="xy")
        points, photo = torch.stack([x, y], -1)[None], torch.tensor([number])
        found = source.sample(photo, points, torch.ones(1))[0]
        assert torch.allclose(found, expected[:, 50:80, 20:60], atol=2e-3)
        # Beyond the edge it is mirrored.
        beyond = torch.stack([-x, 960 - y], -1)[None]
        across = source.sample(photo, torch.stack([x, 960 - (960 - y)], -1)[None], torch.ones(1))
        assert torch.allclose(source.sample(photo, beyond, torch.ones(1)), across, atol=2e-3)
        if width > 4 * 62:
            small = source.sample(photo, 4 * points, torch.full((1,), 4.0))[0]
            assert torch.allclose(small, functional.avg_pool2d(expected, 4)[:, 50:80, 20:60], atol=2e-3)


def test_salience_is_of_what_stands_out() -> None:
    canvas = torch.full((1, 3, 102, 154), 0.5)
    canvas[:, 0, 40:60, 60:80] = 1.0
    places = torch.tensor([[[[70.0 - 28.9, 50.0 - 19.1], [20.0, 10.0], [80.0, 50.0]]]])
    found = scenery.salience(canvas, places, torch.tensor([[14.0]]))
    assert found[0, 0, 0] > 0.15 and found[0, 0, 1:].max() < 0.03


def test_what_is_known_is_carried_over_what_is_not() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 33), torch.linspace(0, 1, 40), indexing="ij")
    values = torch.stack([x, y, 0.3 * torch.ones_like(x)])[None]
    known = torch.ones(1, 1, 33, 40)
    known[..., 10:20, 12:30] = 0
    found = scenery._spread(values, known)
    assert torch.allclose(found[:, :, :10], values[:, :, :10], atol=1e-6)
    assert (found - values).abs().max() < 0.2
    assert (found[:, 2] - 0.3).abs().max() < 1e-5


def test_maps_are_composed_and_inverted() -> None:
    generator = torch.Generator().manual_seed(0)
    angles, scales = torch.rand(2, 5, generator=generator), torch.rand(2, 5, generator=generator) + 0.5
    places = torch.rand(2, 5, 2, generator=generator)
    one, other = similarity(angles, scales, places)
    points = torch.rand(5, 2, generator=generator)
    assert torch.allclose(apply(compose(one, other), points), apply(one, apply(other, points)), atol=1e-5)
    assert torch.allclose(apply(inverse(one), apply(one, points)), points, atol=1e-5)
    turned = apply(
        similarity(torch.tensor(torch.pi / 2), torch.tensor(2.0), torch.tensor([1.0, 0.0])),
        torch.tensor([1.0, 0.0]),
    )
    assert torch.allclose(turned, torch.tensor([1.0, 2.0]), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(slow=st.floats(0, 1), stop=st.floats(0, 1), returns=st.booleans())
def test_paces_go_forward_from_start_to_end_and_some_come_back(slow: float, stop: float, returns: bool) -> None:
    times = torch.linspace(0, 1, 21)
    done = eased(times, *(torch.tensor(float(value)) for value in (slow, stop, returns)))
    assert done.min() >= -1e-6 and done.max() <= 1 + 1e-6 and done[0] == 0
    assert done[-1] == pytest.approx(0.0 if returns else 1.0, abs=1e-6)
    half = done[:11] if returns else done
    assert (half[1:] >= half[:-1] - 1e-6).all()


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"radius": (2.0, 9.0)}, "radius"), ({"radius": (19.0, 14.0)}, "radius"), ({"radius": (10.0, 90.0)}, "too large"),
     ({"num_things": 0}, "num_things"), ({"num_frames": 0}, "num_frames")],
)  # fmt: skip
def test_worlds_that_cannot_be_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LifelikeWorld(**fields)  # type: ignore[arg-type]


@given(angle=st.floats(0, 6.283185), away=st.floats(-2e-3, 2e-3), x=st.floats(0.2, 0.8), y=st.floats(0.2, 0.8))
def test_things_leave_the_way_they_go(angle: float, away: float, x: float, y: float) -> None:
    """Nearly along an edge too, where they would once go backwards."""
    frame, radius = torch.tensor([128.0, 64.0]), torch.tensor([[9.0]])
    inner = torch.tensor([[[x, y]]]) * frame
    for ahead in (
        torch.tensor([[[math.cos(angle), math.sin(angle)]]]),
        torch.tensor([[[1.0, away]]]),
        torch.tensor([[[away, -1.0]]]),
    ):
        place = lifelike._beyond(inner, ahead, radius, frame)
        assert ((place - inner) * ahead).sum() > 0
        gone = (place <= -radius) | (place >= frame + radius)
        assert gone.any()
        assert (place - inner).norm() < 2 * frame.norm()
