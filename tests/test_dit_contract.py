"""The contract of a backbone, asked of all video transformers at tiny size."""

from collections.abc import Mapping

from contract import BackboneContract, Subject
from sgi2v import SGI2V, Controller, Sampling, TimeToMove
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
) -> Subject:
    """A model with one step of SG-I2V and a clip held for one step, at a size as small as it bears."""
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
        },
        guided=guided,
        impossible=impossible,
        adapted=f"{'transformer.' if name == 'a14b' else ''}{blocks}.1.attn1.to_q",
        half=("sg-i2v",),
        causal=causal,
    )


class TestWan22A14B(BackboneContract):
    subject = subject("a14b", "blocks", 48, 32, 9, {"width": 40, "height": 36, "num_frames": 8})


class TestWan21(BackboneContract):
    subject = subject("i2v-14b", "blocks", 48, 32, 9, {"width": 40, "num_frames": 1})


class TestWan22TI2V(BackboneContract):
    subject = subject("ti2v-5b", "blocks", 96, 64, 9, {"width": 80, "height": 48, "num_frames": 8})


class TestLTX(BackboneContract):
    subject = subject(
        "ltx", "transformer_blocks", 96, 64, 17, {"width": 80, "height": 32, "num_frames": 13}, causal=False
    )


class TestLTXThatCleansWhileDecoding(BackboneContract):
    subject = subject("ltx-cleaning", "transformer_blocks", 96, 64, 17, {"num_frames": 16}, causal=False)


class TestCogVideoX(BackboneContract):
    subject = subject("cogvideox", "transformer_blocks", 64, 48, 9, {"width": 80, "height": 64, "num_frames": 17})
