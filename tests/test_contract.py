"""The contract of a backbone, asked of both kinds of model: a U-Net like Stable Video Diffusion, and a transformer."""

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract import BackboneContract, Bench, Subject
from plugged import write_entry_points
from sgi2v import SGI2V, Controller, DragDiffusion, FreeTraj, InTurn, Sampling, TimeToMove
from sgi2v.errors import FieldError
from sgi2v.pipeline import plan
from sgi2v.planning import Range
from tiny import tiny_svd
from toy_motion.nudge import ToyNudge
from toy_motion.saving import save_toy


@pytest.fixture(scope="module", autouse=True)
def toy_motion_is_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(write_entry_points(tmp_path_factory.mktemp("site"))))
        yield


@functools.cache
def _root() -> tempfile.TemporaryDirectory[str]:
    """Goes when the interpreter does."""
    return tempfile.TemporaryDirectory(prefix="toy-flow-")


@functools.cache
def toy() -> Path:
    """The toy model's folder, written once."""
    return save_toy(Path(_root().name))


def methods(
    guided: SGI2V, drag: DragDiffusion, clip: TimeToMove, noise: FreeTraj, early: Range
) -> dict[str, Controller]:
    """All built-in ways of steering, both combinations, and one of somebody else's."""
    return {
        "none": Controller(),
        "sg-i2v": guided,
        "freetraj": noise,
        "drag-diffusion": drag,
        "time-to-move": clip,
        "time-to-move+sg-i2v": InTurn(first=clip, second=guided),
        "freetraj+sg-i2v": InTurn(first=noise, second=guided),
        "toy-nudge": ToyNudge(guided=early),
    }


U_NET = SGI2V(guided=Range(low=1.0, high=60.0), iterations=2, reuse_deep=False)
TRANSFORMER = SGI2V(
    guided=Range(low=0.4, high=0.8, unit="noise-level"),
    iterations=2,
    lr=0.05,
    weight_decay=0.01,  # pulls at every frame, also where there is no gradient
    layers=("blocks.0:self", "blocks.1:first-frame"),
)
MATCHING = replace(TRANSFORMER, loss="matching", layers=("blocks.1:match",), hold_background=0.1, keep_statistics=True)
DIRECT = replace(TRANSFORMER, backward="direct", lr_unit="noise", clip_gradient=1.0, path_parts=2)


class TestStableVideoDiffusion(BackboneContract):
    subject = Subject(
        folder=lambda: tiny_svd(2, light=True),
        sampling=Sampling(width=32, height=32, num_frames=2, num_steps=4, seed=3),
        controllers=methods(
            U_NET,
            DragDiffusion(iterations=2),
            TimeToMove(t_weak=300.0, t_strong=50.0),
            FreeTraj(guided=Range(low=0.0, high=0.5, unit="share")),
            Range(low=1.0, high=400.0),
        ),
        guided=U_NET,
        impossible={"width": 33, "height": 70, "num_frames": 1},
        adapted="up_blocks.2.attentions.1.transformer_blocks.0.attn1.to_q",
        half=("sg-i2v",),
    )


class TestToyFlow(BackboneContract):
    subject = Subject(
        folder=toy,
        sampling=Sampling(width=64, height=48, num_frames=9, num_steps=5, seed=3),
        controllers={"sg-i2v-matching": MATCHING, "sg-i2v-direct": DIRECT}
        | methods(
            TRANSFORMER,
            DragDiffusion(
                at=0.8,
                unit="noise-level",
                iterations=2,
                layers=("blocks.1:output",),
                cell=4.0,
                reference_attention=False,
            ),
            TimeToMove(t_weak=0.95, t_strong=0.85, unit="noise-level"),
            FreeTraj(edit_spatial=False, edit_temporal=False),
            Range(low=0.5, high=1.0, unit="noise-level"),
        ),
        guided=TRANSFORMER,
        impossible={"width": 56, "height": 49, "num_frames": 10},
        adapted="blocks.1.attn1.to_q",
        half=("sg-i2v", "sg-i2v-matching", "time-to-move+sg-i2v"),
    )

    @pytest.mark.parametrize("controller", [FreeTraj(), InTurn(first=FreeTraj(), second=TRANSFORMER)])
    def test_attention_that_cannot_be_edited_is_refused(self, bench: Bench, controller: Controller) -> None:
        with pytest.raises(FieldError, match="mixes frames and places at once"):
            plan(bench.scene, bench.outline, controller=controller, sampling=self.subject.sampling)
        with pytest.raises(FieldError, match="mixes frames and places at once"):
            bench.backbone.editing(lambda call: None, bench.grid)

    def test_the_nearest_size_is_named(self, bench: Bench) -> None:
        for values, nearest in (
            ((56, 48, 9), "48 and 64"), ((64, 48, 10), "9 and 13"), ((64, 48, 1), "5 and 9"), ((4, 48, 9), "16"),
        ):  # fmt: skip
            with pytest.raises(FieldError, match=nearest):
                bench.outline.grid(*values)

    def test_words_change_the_video(self, bench: Bench) -> None:
        assert bench.outline.takes_text
        other = Bench(self.subject)
        other.scene = bench.scene.__class__(image=bench.scene.image, motions=bench.scene.motions, prompt="a blue box")
        assert not bench.ran("none")[0].frames.equal(other.ran("none")[0].frames)
