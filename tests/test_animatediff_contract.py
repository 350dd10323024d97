"""The contract of a backbone, asked of AnimateDiff at tiny size."""

from contract import BackboneContract, Subject
from sgi2v import SGI2V, Controller, FreeTraj, Sampling, TimeToMove
from sgi2v.planning import Range
from tiny_animatediff import tiny_animatediff

GUIDED = SGI2V(
    guided=Range(low=0.5, high=0.96, unit="noise-level"),
    iterations=2,
    lr=0.05,
    weight_decay=0.0,
    layers=("up_blocks.1.attentions.0:self", "up_blocks.1.attentions.1:first-frame"),
)


class TestAnimateDiff(BackboneContract):
    subject = Subject(
        folder=tiny_animatediff,
        sampling=Sampling(width=64, height=48, num_frames=5, num_steps=4, seed=3),
        controllers={
            "none": Controller(),
            "sg-i2v": GUIDED,
            "time-to-move": TimeToMove(t_weak=0.98, t_strong=0.5, unit="noise-level"),
            "freetraj": FreeTraj(),
        },
        guided=GUIDED,
        impossible={"width": 60, "height": 36, "num_frames": 33},
        adapted="up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q",
        half=("sg-i2v",),
    )
