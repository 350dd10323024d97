"""The contract of a backbone, asked of all video transformers at tiny size."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from contract import BackboneContract, Subject, no_weights_opened, scene
from sgi2v import SGI2V, Controller, DragDiffusion, FreeTraj, Sampling, TimeToMove
from sgi2v.backbones.cogvideox.outline import CogVideoXSettings
from sgi2v.backbones.ltx.outline import LTXSettings
from sgi2v.backbones.registry import outline_of
from sgi2v.backbones.wan.outline import PUBLISHED
from sgi2v.controllers import InTurn, recommended
from sgi2v.errors import FieldError
from sgi2v.pipeline import plan
from sgi2v.planning import Range
from tiny_dit import tiny_dit


def subject(
    name: str,
    blocks: str,
    width: int,
    height: int,
    num_frames: int,
    impossible: Mapping[str, int],
    *,
    causal: bool = True,
    others: bool = False,
) -> Subject:
    """A model with one step of SG-I2V and a clip held for one step, at a size as small as it bears.

    ``others``: with what FreeTraj and DragDiffusion can do without editing attention, too.
    """
    guided = SGI2V(
        guided=Range(low=0.5, high=0.96, unit="noise-level"),
        iterations=2,
        lr=0.05,
        weight_decay=0.01,  # pulls at every frame, also where there is no gradient
        layers=(f"{blocks}.0:self", f"{blocks}.1:first-frame"),
    )
    return Subject(
        folder=lambda: tiny_dit(name),
        sampling=Sampling(width=width, height=height, num_frames=num_frames, num_steps=4, seed=3),
        controllers={
            "none": Controller(),
            "sg-i2v": guided,
            "time-to-move": TimeToMove(t_weak=0.98, t_strong=0.5, unit="noise-level"),
            **(without_attention(f"{blocks}.1:output") if others else {}),
        },
        guided=guided,
        impossible=impossible,
        adapted=f"{'transformer.' if name == 'a14b' else ''}{blocks}.1.attn1.to_q",
        half=("sg-i2v",),
        causal=causal,
    )


def without_attention(layer: str) -> Mapping[str, Controller]:
    """As these models recommend, at a level and on a layer that the tiny ones have."""
    advice = LTXSettings().recommended
    drag = recommended("drag-diffusion", advice)
    assert isinstance(drag, DragDiffusion) and not drag.uses().edits
    return {
        "freetraj": recommended("freetraj", advice),
        "drag-diffusion": replace(drag, at=0.9, iterations=2, layers=(layer,), arrived=0.2),
    }


class TestWan22A14B(BackboneContract):
    subject = subject("a14b", "blocks", 48, 32, 9, {"width": 40, "height": 36, "num_frames": 8})


class TestWan21(BackboneContract):
    subject = subject("i2v-14b", "blocks", 48, 32, 9, {"width": 40, "num_frames": 1})


class TestWan22TI2V(BackboneContract):
    subject = subject("ti2v-5b", "blocks", 96, 64, 9, {"width": 80, "height": 48, "num_frames": 8}, others=True)


class TestLTX(BackboneContract):
    subject = subject(
        "ltx",
        "transformer_blocks",
        96,
        64,
        17,
        {"width": 80, "height": 32, "num_frames": 13},
        causal=False,
        others=True,
    )


class TestLTXThatCleansWhileDecoding(BackboneContract):
    subject = subject("ltx-cleaning", "transformer_blocks", 96, 64, 17, {"num_frames": 16}, causal=False)


class TestCogVideoX(BackboneContract):
    subject = subject("cogvideox", "transformer_blocks", 64, 48, 9, {"width": 80, "height": 64, "num_frames": 17})


SIZE = Sampling(width=96, height=64, num_frames=9, num_steps=6)


@pytest.mark.parametrize(
    ("controller", "options"),
    [
        (FreeTraj(), "--controller.no-edit-spatial --controller.no-edit-temporal"),
        (FreeTraj(edit_spatial=False), "--controller.no-edit-temporal"),
        (DragDiffusion(layers=("blocks.1:output",)), "--controller.no-reference-attention"),
        (
            InTurn(
                first=FreeTraj(edit_temporal=False),
                second=SGI2V(guided=Range(low=0.5, high=0.96, unit="noise-level"), layers=("blocks.1:first-frame",)),
            ),
            "--controller.first.no-edit-spatial",
        ),
    ],
)
def test_an_edit_of_attention_is_refused_with_the_options_that_turn_it_off(
    controller: Controller, options: str
) -> None:
    with no_weights_opened(), pytest.raises(FieldError) as caught:
        plan(scene(), outline_of(tiny_dit("ti2v-5b")), controller=controller, sampling=SIZE)
    assert caught.value.field == "controller" and caught.value.remedy == options and "\n" not in str(caught.value)


def test_what_is_recommended_edits_no_attention() -> None:
    for settings in (*(make() for make in PUBLISHED.values()), LTXSettings(), CogVideoXSettings()):
        for name in ("freetraj", "drag-diffusion"):
            assert not recommended(name, settings.recommended).uses().edits
