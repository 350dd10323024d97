"""Colours of features mean the same in every frame, and looking at a run leaves it as it was."""

import numpy as np
import pytest
import torch

from sgi2v.backbones import Text
from sgi2v.backbones.svd.model import SVD
from sgi2v.controllers import Controller, Setup
from sgi2v.evaluation.feature_pictures import FeatureReader, Look, components, feature_sheet, read_by_sg_i2v
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.pipeline import generate, plan
from sgi2v.planning import Sampling
from sgi2v.sampling import sample
from tiny import load_svd, tiny_svd

SCENE = HeldOutWorld(num_frames=4, limit=1)[0].scene
SAMPLING = Sampling(num_steps=2, width=64, height=64, num_frames=4)


@pytest.fixture(scope="module")
def backbone() -> SVD:
    return load_svd(tiny_svd(4, light=True), device="cpu", dtype="float32")


def test_components_are_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([5.0, 3, 2, 0.1, 0.1])[None, :, None, None]
    features = torch.randn(3, 5, 6, 7, generator=generator) * scales + 4
    colours = components(features)
    assert colours.shape == (3, 3, 6, 7) and colours.min() == 0 and colours.max() == 1
    rows = features.permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    _, _, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    for index in range(3):
        wanted = (rows - rows.mean(0)) @ (axes[index] * np.sign(axes[index][np.abs(axes[index]).argmax()]))
        low, high = np.quantile(wanted, [0.01, 0.99])
        found = colours[:, index].flatten().double().numpy()
        assert np.allclose(found, np.clip((wanted - low) / (high - low), 0, 1), atol=1e-4)


def test_one_colour_is_one_feature_in_every_frame() -> None:
    """Jointly, not frame by frame: an object that moves keeps its colour, and a changed one does not."""
    features = torch.zeros(2, 4, 8, 8)
    features[0, :, 1:3, 1:3] = features[1, :, 5:7, 5:7] = torch.tensor([1.0, 2, 0, 0])[:, None, None]
    features[1, :, 0] = torch.tensor([0.0, 0, 3, 0])[:, None]
    colours = components(features)
    assert torch.equal(colours[0, :, 1, 1], colours[1, :, 5, 5])
    assert not torch.equal(colours[1, :, 0, 0], colours[0, :, 0, 0])


def test_steps_and_layers_are_said_by_name() -> None:
    look = Look(attention="up_blocks.3.attentions.2")
    assert look.layers[0] == "up_blocks.3:output" and look.layers[3] == "up_blocks.3.attentions.2:first-frame"
    assert look.steps(50) == (45, 32, 20, 5) and look.steps(1) == (1,)
    assert Look(remaining=(2, 7, 2)).steps(8) == (7, 2)
    with pytest.raises(ValueError, match="9 is no step of 8"):
        Look(remaining=(9,)).steps(8)


def test_a_sheet_of_a_run(backbone: SVD) -> None:
    assert read_by_sg_i2v(backbone.settings) == "up_blocks.2.attentions.2"
    sheet = feature_sheet(SCENE, backbone=backbone, sampling=SAMPLING, look=Look(remaining=(1,)))
    # A row of the video and one of each source, of square pictures with a gap.
    assert sheet.height == 5 * 131 and sheet.width == 190 + 4 * 131
    pixels = np.asarray(sheet)[131:, 190:]
    assert pixels.std() > 20
    hooks = [len(m._forward_hooks) for m in backbone.denoiser.modules()]
    assert not any(hooks)
    with pytest.raises(ValueError, match=r"nonsense"):
        look = Look(attention="nonsense", remaining=(2,))
        feature_sheet(SCENE, backbone=backbone, sampling=SAMPLING, look=look)
    assert not any(len(m._forward_hooks) for m in backbone.denoiser.modules())


def test_watching_changes_nothing(backbone: SVD) -> None:
    plain = generate(SCENE, backbone=backbone, controller=Controller(), sampling=SAMPLING).frames
    planned = plan(SCENE, backbone.outline, controller=Controller(), sampling=SAMPLING)
    generator = torch.Generator().manual_seed(planned.sampling.seed)
    condition = backbone.encode(planned.tracks.image, Text(), planned.grid, generator)
    noise = backbone.noise(planned.grid, generator)
    setup = Setup(
        backbone=backbone,
        condition=condition,
        tracks=planned.tracks,
        grid=planned.grid,
        levels=planned.levels,
        generator=generator,
    )
    kept: list[object] = []
    reader = FeatureReader(layers=Look().layers, remaining=(2, 1), seen=kept.append)
    latents = sample(reader, setup, noise=noise)
    assert torch.equal(backbone.decode(latents), plain) and len(kept) == 1


def test_a_layer_that_is_not_there_is_said_before_the_work(backbone: SVD, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "encode", lambda *_: pytest.fail("it was encoded"))
    with pytest.raises(ValueError, match=r"has no layer 'up_blocks.2.attentions.9'"):
        feature_sheet(SCENE, backbone=backbone, sampling=SAMPLING, look=Look(attention="up_blocks.2.attentions.9"))
