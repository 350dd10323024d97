"""FreeTraj against its literal twin, and what must hold of each of its parts."""

import dataclasses
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from imprint import nothing_is_left
from reference import freetraj as literal
from sgi2v import SVD, Box, Controller, Key, Motion, Range, Sampling, Scene, SVDSettings, generate
from sgi2v.attention import AttentionCall
from sgi2v.controllers import Setup
from sgi2v.controllers.freetraj import (
    FreeTraj,
    lay,
    over_time,
    regions_by_size,
    within_frames,
)
from sgi2v.grid import Grid, Track, Tracks
from sgi2v.planning import Unit
from sgi2v.spectrum import low_pass_3d, merge_frequencies_3d
from sgi2v.step import Reporter, Step
from test_no_trace import Broken, NoCopies, NoWaiting
from tiny import load_svd, setup_of, tiny_svd

NUM_FRAMES = 3
WIDTH, HEIGHT = 48, 64
GRID = Grid(width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES)
PATHS = (
    ((4.0, 8.0, 28.0, 40.0), (12.0, 16.0, 36.0, 48.0), (20.0, 24.0, 44.0, 56.0)),
    (
        (24.0, 0.0, 46.0, 20.0),
        (24.0, 0.0, 46.0, 20.0),
        (40.0, -8.0, 62.0, 12.0),
    ),  # overlaps; leaves the picture
)
IDENTITY = FreeTraj(factor=1.0, inject_noise=False)

Paths = Sequence[Sequence[literal.Box]]


def tracks_of(paths: Paths) -> Tracks:
    return Tracks(
        image=picture(),
        tracks=tuple(Track(boxes=np.array(path, dtype=np.float32)) for path in paths),
    )


def boxes_of(paths: Paths) -> np.ndarray:
    return tracks_of(paths).boxes(range(NUM_FRAMES))


def in_float32(paths: Paths) -> list[list[literal.Box]]:
    """The boxes as a grid sees them."""
    return [[(float(a), float(b), float(c), float(d)) for a, b, c, d in path] for path in boxes_of(paths)]


# Without guidance: one pass a step.
ONE_PASS = SVDSettings(num_frames=NUM_FRAMES, max_guidance_scale=1.0)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(NUM_FRAMES), device="cpu", dtype="float32", settings=ONE_PASS)


@pytest.fixture(scope="module")
def light() -> SVD:
    return load_svd(tiny_svd(NUM_FRAMES, light=True), device="cpu", dtype="float32", settings=ONE_PASS)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def scene() -> Scene:
    motions = []
    for (left, top, right, bottom), dx in (((8, 8, 28, 40), 14), ((24, 4, 44, 30), -6)):
        x, y = (left + right) / 2, (top + bottom) / 2
        path = (Key(time=0.0, x=x, y=y), Key(time=1.0, x=x + dx, y=y + 8))
        motions.append(Motion(box=Box(left=left, top=top, right=right, bottom=bottom), path=path))
    return Scene(image=picture(), motions=tuple(motions))


SMALL = Sampling(width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES, num_steps=2, seed=1)


# ---------------------------------------------------------------- regions


# Whole sixteenths of a pixel: numbers that a float32 halves exactly.
boxes_anywhere = st.tuples(
    st.integers(-640, 960), st.integers(-640, 960), st.integers(16, 960), st.integers(16, 960)
).map(lambda b: tuple(v / 16 for v in (b[0], b[1], b[0] + b[2], b[1] + b[3])))
paths_anywhere = st.lists(st.tuples(*[boxes_anywhere] * NUM_FRAMES), min_size=1, max_size=3)


@given(paths=paths_anywhere)
@settings(max_examples=25, deadline=None)
def test_regions_are_the_last_boxes_over_each_cell_at_every_size(paths: Paths) -> None:
    boxes = boxes_of(paths)
    exact = in_float32(paths)
    found = regions_by_size(boxes, GRID, torch.device("cpu"))
    assert list(found) == [(8, 6), (4, 3), (2, 2), (1, 1)]
    for power, ((rows, columns), regions) in enumerate(found.items()):
        for f in range(NUM_FRAMES):
            at_frame = [path[f] for path in exact]
            wanted = [literal.region_of(at_frame, y, x, 8 * 2**power) for y in range(rows) for x in range(columns)]
            assert regions.ids[f].tolist() == wanted
            members = {region: places.tolist() for region, places in regions.members[f]}
            assert members == {g: [p for p, region in enumerate(wanted) if region == g] for g in sorted(set(wanted))}
        changing = {p for p in range(rows * columns) if len(set(regions.ids[:, p].tolist())) > 1}
        assert set(regions.changing.tolist()) == changing


@given(regions=st.lists(st.integers(0, 3), min_size=1, max_size=8), factor=st.floats(0, 1))
def test_the_masks_of_the_twin_are_symmetric(regions: list[int], factor: float) -> None:
    mask = literal.mask_of(regions, regions, factor)
    assert torch.equal(mask, mask.T) and mask.diagonal().eq(1).all()


# ---------------------------------------------------------------- attention


def call_of(source: str, size: tuple[int, int] = (4, 3), seed: int = 0) -> AttentionCall:
    places = size[0] * size[1]
    shape = (places, NUM_FRAMES, 8) if source == "temporal" else (NUM_FRAMES, places, 8)
    query, key, value = 2 * torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    return AttentionCall(
        layer="x", source="temporal" if source == "temporal" else "self", num_heads=2, size=size,
        query=query, key=key, value=value,
    )  # fmt: skip


def edited(call: AttentionCall, paths: Paths, factor: float) -> Tensor:
    regions = regions_by_size(boxes_of(paths), GRID, torch.device("cpu"))[call.size]
    return (over_time if call.source == "temporal" else within_frames)(call, regions, factor)


@pytest.mark.parametrize("source", ["self", "temporal"])
@given(paths=paths_anywhere, factor=st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0]), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_attention_is_that_under_explicit_masks(source: str, paths: Paths, factor: float, seed: int) -> None:
    call = call_of(source, seed=seed)
    wanted = literal.edited(call, in_float32(paths), 16, factor)
    assert torch.allclose(edited(call, paths, factor), wanted, atol=1e-5)


@pytest.mark.parametrize("source", ["self", "temporal"])
def test_a_multiplied_logit_is_no_added_one(source: str) -> None:
    """Turning the factor into a bias log(factor), as attention masks usually are, gives something else."""
    call = call_of(source)
    found = edited(call, PATHS, 0.01)
    assert (found - call.ordinary()).abs().max() > 0.1
    ids = regions_by_size(boxes_of(PATHS), GRID, torch.device("cpu"))[call.size].ids
    lines = ids.T if source == "temporal" else ids
    bias = torch.where(lines[:, :, None] == lines[:, None, :], 0.0, np.log(0.01))[:, None]

    def split(t: Tensor) -> Tensor:
        heads: Tensor = t.unflatten(-1, (2, -1))
        return heads.transpose(1, 2)

    biased = torch.nn.functional.scaled_dot_product_attention(
        split(call.query), split(call.key), split(call.value), attn_mask=bias
    )
    assert (found - biased.transpose(1, 2).flatten(2)).abs().max() > 0.1


@pytest.mark.parametrize("source", ["self", "temporal"])
def test_edited_attention_never_waits_for_the_device(source: str) -> None:
    call = call_of(source)
    regions = regions_by_size(boxes_of(PATHS), GRID, torch.device("cpu"))[call.size]
    with torch.no_grad(), NoCopies(), NoWaiting():
        (over_time if source == "temporal" else within_frames)(call, regions, 0.01)


def test_many_places_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_of("temporal")
    whole = edited(call, PATHS, 0.01)
    monkeypatch.setattr("sgi2v.controllers.freetraj._PLACES_AT_ONCE", 2)
    assert torch.allclose(edited(call, PATHS, 0.01), whole, atol=1e-6)


@pytest.mark.parametrize("source", ["self", "temporal"])
def test_gradients_are_those_under_explicit_masks(source: str) -> None:
    gradients = []
    for twin in (False, True):
        call = call_of(source)
        leaves = [t.clone().requires_grad_(True) for t in (call.query, call.key, call.value)]
        call = dataclasses.replace(call, query=leaves[0], key=leaves[1], value=leaves[2])
        out = literal.edited(call, PATHS, 16, 0.01) if twin else edited(call, PATHS, 0.01)
        gradients.append(torch.autograd.grad(out.square().sum(), leaves))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def setup_for(backbone: SVD, paths: Paths = PATHS, num_steps: int = 8) -> Setup:
    grid = backbone.grid(WIDTH, HEIGHT, NUM_FRAMES)
    return setup_of(backbone, tracks_of(paths), grid, num_steps=num_steps, seed=4)


def step_at(index: int, setup: Setup) -> Step:
    level, next_level = setup.levels[index : index + 2]
    count = len(setup.levels) - 1
    return Step(index=index, count=count, level=level, next_level=next_level, reporter=Reporter())


@pytest.mark.parametrize("part", ["edit_spatial", "edit_temporal", "both"])
def test_a_denoising_step_is_the_twins(backbone: SVD, part: str) -> None:
    controller = FreeTraj(
        edit_spatial=part in ("edit_spatial", "both"), edit_temporal=part in ("edit_temporal", "both")
    )
    setup = setup_for(backbone)
    step = step_at(0, setup)
    x = backbone.noise(GRID, setup.generator) * step.level.init_noise_sigma
    with controller.during(step, controller.prepare(setup)):
        found = backbone.denoise(x, step.level, setup.condition)

    def edit(call: AttentionCall) -> Tensor | None:
        wanted = controller.edit_temporal if call.source == "temporal" else controller.edit_spatial
        return literal.edited(call, PATHS, {8: 8, 4: 16, 2: 32, 1: 64}[call.size[0]], 0.01) if wanted else None

    with backbone.editing(edit, GRID):
        wanted = backbone.denoise(x, step.level, setup.condition)
    plain = backbone.denoise(x, step.level, setup.condition)
    effect = (found - plain).abs().max()
    assert effect > 0.02 and (found - wanted).abs().max() < 0.01 * effect


def test_only_the_named_blocks_are_changed(backbone: SVD) -> None:
    controller = FreeTraj(layers=("up_blocks.2", "down_blocks.1.attentions.0"))
    setup = setup_for(backbone)
    step, x = step_at(0, setup), torch.randn(GRID.latent_shape)
    left: list[str] = []
    state = controller.prepare(setup)
    with backbone.editing(lambda call: left.append(call.layer), GRID), controller.during(step, state):
        backbone.denoise(x, step.level, setup.condition)
    everything = {n.split(".transformer_blocks")[0] for n, _ in backbone.denoiser.named_modules() if "attn1" in n}
    everything = {n for n in everything if "temporal" not in n}
    named = {n for n in everything if n.startswith("up_blocks.2.") or n == "down_blocks.1.attentions.0"}
    assert set(left) == everything - named and len(named) == 4
    assert controller.uses().blocks == controller.layers
    backbone.outline.check(scene(), controller, SMALL)
    with pytest.raises(ValueError, match=r"no layer 'up_blocks\.7'"):
        backbone.outline.check(scene(), FreeTraj(layers=("up_blocks.7",)), SMALL)


@pytest.mark.parametrize(("count", "edited_steps"), [(50, 6), (25, 3), (12, 2), (4, 1), (1, 1)])
def test_attention_is_changed_in_the_first_share_of_the_steps(backbone: SVD, count: int, edited_steps: int) -> None:
    controller, setup = FreeTraj(), setup_for(backbone, num_steps=count)
    state = controller.prepare(setup)
    assert controller.schedule(setup.levels).acts == (True,) * edited_steps + (False,) * (count - edited_steps)
    some = backbone.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    plain = some.processor
    for index in {0, edited_steps - 1, edited_steps, count - 1} - {count}:
        with controller.during(step_at(index, setup), state):
            assert (some.processor is plain) == (index >= edited_steps), index


@pytest.mark.parametrize(
    ("unit", "bounds"),
    [("sigma", (350.0, 1000.0)), ("noise-level", (0.9971, 1.0)), ("step", (45.0, 50.0)), ("share", (0.0, 0.1))],
)
def test_the_share_can_be_said_in_other_units(backbone: SVD, unit: Unit, bounds: tuple[float, float]) -> None:
    assert unit in get_args(Unit)
    said = FreeTraj(guided=Range(low=bounds[0], high=bounds[1], unit=unit))
    levels = backbone.levels(50, GRID)
    assert said.schedule(levels) == FreeTraj().schedule(levels)


# ---------------------------------------------------------------- noise


def drawing(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_injected_noise_is_the_twins() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(GRID.latent_shape, generator=generator)
    patches = [torch.randn(4, 4, 3, generator=generator), torch.randn(4, 2, 2, generator=generator)]
    paths = (
        tuple((8.0 * x, 8.0 * y, 8.0 * x + 24, 8.0 * y + 32) for x, y in ((0, 1), (2, 2), (5, 6))),
        tuple((8.0 * x, 8.0 * y, 8.0 * x + 16, 8.0 * y + 16) for x, y in ((1, 2), (2, 3), (-1, -1))),
    )
    found = noise.clone()
    for patch, track in zip(patches, GRID.cells(boxes_of(paths)), strict=True):
        lay(found, patch, track)
    assert torch.equal(found, literal.injected(noise, patches, paths, 8))
    assert torch.equal(found[0, :, 2:4, 1:3], patches[1]), "the later box is not on top"
    assert not torch.equal(found, noise)


@given(paths=paths_anywhere)
@settings(max_examples=25, deadline=None)
def test_noise_outside_all_boxes_stays_and_inside_is_new(paths: Paths) -> None:
    noise = torch.randn(GRID.latent_shape)
    cells = GRID.cells(boxes_of(paths))
    found = FreeTraj(merge_noise=False).steered_noise(noise, cells, drawing())
    ids = regions_by_size(boxes_of(paths), GRID, torch.device("cpu"))[8, 6].ids.reshape(NUM_FRAMES, 1, 8, 6)
    assert torch.equal((found != noise).any(dim=1, keepdim=True), ids > 0)


def test_a_box_that_never_moves_has_the_same_noise_in_every_frame() -> None:
    cells = GRID.cells(boxes_of([[(8.0, 16.0, 32.0, 40.0)] * NUM_FRAMES]))
    noise = torch.randn(GRID.latent_shape)
    found = FreeTraj(merge_noise=False).steered_noise(noise, cells, drawing())[:, :, 2:5, 1:4]
    assert torch.equal(found, found[:1].expand_as(found)) and found.std() > 0.5


def test_a_box_that_moves_by_whole_cells_takes_its_noise_along_and_a_growing_one_keeps_its_middle() -> None:
    moves = [(8.0 * k, 8.0, 8.0 * k + 16, 32.0) for k in range(NUM_FRAMES)]
    grows = [(16.0 - 8 * k, 32.0 - 8 * k, 32.0 + 8 * k, 48.0 + 8 * k) for k in range(NUM_FRAMES)]
    noise = torch.randn(GRID.latent_shape)
    found = FreeTraj(merge_noise=False).steered_noise(noise, GRID.cells(boxes_of([moves])), drawing())
    for k in range(NUM_FRAMES):
        assert torch.equal(found[k, :, 1:4, k : k + 2], found[0, :, 1:4, :2])
    found = FreeTraj(merge_noise=False).steered_noise(noise, GRID.cells(boxes_of([grows])), drawing())
    for k in range(NUM_FRAMES):
        assert torch.equal(found[k, :, 4:6, 2:4], found[0, :, 4:6, 2:4])


def test_every_box_has_its_own_patch_the_same_with_and_without_the_merge() -> None:
    boxes = boxes_of([[(0.0, 0.0, 24.0, 24.0)] * NUM_FRAMES, [(24.0, 24.0, 48.0, 48.0)] * NUM_FRAMES])
    noise, cells = torch.randn(GRID.latent_shape), GRID.cells(boxes)
    injected = FreeTraj(merge_noise=False).steered_noise(noise, cells, drawing())
    first, second = (slice(None), slice(None), slice(0, 3), slice(0, 3)), (..., slice(3, 6), slice(3, 6))
    assert (injected[first] - injected[second]).abs().min() > 0
    carrier = FreeTraj(spatial_cutoff=1e6, temporal_cutoff=1e6).steered_noise(noise, cells, drawing())
    for box in (first, second):
        assert torch.allclose(carrier[box], injected[box], atol=1e-4)
    assert (carrier[:, :, 6:] - noise[:, :, 6:]).abs().mean() > 0.5


def test_the_merge_keeps_the_runs_high_frequencies_and_one_generator_draws_all() -> None:
    noise = torch.randn(GRID.latent_shape)
    cells = GRID.cells(boxes_of(PATHS))
    before = torch.get_rng_state()
    found = FreeTraj().steered_noise(noise, cells, drawing())
    assert torch.equal(FreeTraj().steered_noise(noise.clone(), cells, drawing()), found)
    assert not torch.allclose(FreeTraj().steered_noise(noise, cells, drawing(1)), found, atol=1e-2)
    assert torch.equal(torch.get_rng_state(), before), "the global random generator was used"
    for cutoffs in ({"spatial_cutoff": 0.0}, {"temporal_cutoff": 0.0}):
        assert torch.equal(FreeTraj(**cutoffs).steered_noise(noise, cells, drawing()), noise)  # type: ignore[arg-type]
    for off in (FreeTraj(inject_noise=False).steered_noise(noise, cells, drawing()),
                FreeTraj().steered_noise(noise, cells[:0], drawing())):  # fmt: skip
        assert off is noise
    everything = FreeTraj(spatial_cutoff=1e6, temporal_cutoff=1e6)
    carrier = everything.steered_noise(noise, cells, drawing())
    for keep in (False, True):
        mask = low_pass_3d(NUM_FRAMES, 8, 6, 0.25, 0.1)
        wanted = merge_frequencies_3d(carrier, noise, mask, keep_variance=keep)
        merged = FreeTraj(keep_variance=keep).steered_noise(noise, cells, drawing())
        assert torch.allclose(merged, wanted, atol=1e-4) and not torch.allclose(merged, noise, atol=1e-2)


# ---------------------------------------------------------------- whole runs


def test_the_identity_setting_is_no_control_bit_for_bit(light: SVD) -> None:
    plain = generate(scene(), backbone=light, controller=Controller(), sampling=SMALL).frames
    for identity in (IDENTITY, FreeTraj(edit_spatial=False, edit_temporal=False, inject_noise=False)):
        assert torch.equal(generate(scene(), backbone=light, controller=identity, sampling=SMALL).frames, plain)


def test_the_same_seed_gives_the_same_video_and_leaves_nothing(light: SVD) -> None:
    with nothing_is_left(light.denoiser):
        videos = [
            generate(scene(), backbone=light, controller=controller, sampling=SMALL).frames
            for controller in (FreeTraj(), FreeTraj(), FreeTraj(inject_noise=False))
        ]
    assert torch.equal(videos[0], videos[1])
    assert not torch.allclose(videos[0], videos[2], atol=1e-3)


def test_a_scene_without_motions_is_no_control(backbone: SVD) -> None:
    controller, setup = FreeTraj(), setup_for(backbone, paths=())
    state = controller.prepare(setup)
    noise = torch.randn(GRID.latent_shape)
    assert torch.equal(controller.start(noise, state), Controller().start(noise, state))
    some = backbone.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    plain = some.processor
    with controller.during(step_at(0, setup), state):
        assert some.processor is plain


@pytest.mark.parametrize("layer", ["down_blocks.1.resnets.0", "up_blocks.2.attentions.1"])
def test_nothing_is_left_after_a_run_that_fails(light: SVD, layer: str) -> None:
    def fail(*_: object) -> None:
        raise Broken

    with nothing_is_left(light.denoiser):
        handle = light.denoiser.get_submodule(layer).register_forward_hook(fail)
        try:
            with pytest.raises(Broken):
                generate(scene(), backbone=light, controller=FreeTraj(), sampling=SMALL)
        finally:
            handle.remove()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"factor": -0.1}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"spatial_cutoff": -1.0}, "spatial_cutoff"),
        ({"temporal_cutoff": float("inf")}, "temporal_cutoff"),
        ({"filter_order": 0}, "filter_order"),
    ],
)
def test_impossible_values_are_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"controller\.{named}"):
        FreeTraj(**fields)  # type: ignore[arg-type]


def test_a_range_that_no_step_falls_into_is_an_error_only_where_it_matters(backbone: SVD) -> None:
    never, levels = Range(low=1e6, high=1e7), backbone.levels(4, GRID)
    with pytest.raises(ValueError, match=r"controller\.guided: no step of 4"):
        FreeTraj(guided=never).schedule(levels)
    for quiet in (FreeTraj(edit_spatial=False, edit_temporal=False, guided=never), FreeTraj(factor=1.0, guided=never)):
        schedule = quiet.schedule(levels)
        assert schedule.acts == (False,) * 4 and schedule.iterations == (0,) * 4 and schedule.changes_noise
        assert not quiet.uses().edits
