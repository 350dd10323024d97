"""Studies and their command line: a question, the variants of a method that answer it, and how they are run."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from sgi2v.backbones import Backbone, Outline
from sgi2v.controllers import SGI2V, Controller, recommended
from sgi2v.errors import FieldError
from sgi2v.evaluation.held_out import HeldOutWorld, Variety
from sgi2v.evaluation.row_maker import ModelFree
from sgi2v.grid import Grid
from sgi2v.opening import DType, ModelChoice
from sgi2v.world import Kind

EXPERIMENTS: Final = Path(__file__).parents[1]
OUT: Final = EXPERIMENTS.parent / "out" / "studies"
BASELINES: Final[tuple[ModelFree, ...]] = ("true", "still")
"""Rows without a model that every study has."""
PUBLISHED: Final = ("up_blocks.2.attentions.1:first-frame", "up_blocks.2.attentions.2:first-frame")
_FREE: Final = ("threads", "jobs", "share", "report", "variety")
"""Options that a study as it is committed may have otherwise."""


@dataclass(frozen=True, kw_only=True)
class StudiedModel(ModelChoice):
    """A model and the rendered scenes that it is studied on."""

    recipe: str | None = "study"
    """One of the model's recipes; None: its own settings (for the full-size model)."""
    dtype: DType | None = "float32"
    """Number format: float32 goes on with the committed rows on any machine, rows of another are other rows and are not
    committed; None: what the machine is fast at (for the full-size model)."""
    probed: bool = False
    """Take the layers that sgi2v probe --write has found on this machine: a study as it is committed does not."""
    threads: int = 1
    """CPU threads of a process."""
    limit: int = 32
    """Number of scenes."""
    scene_set: int = 0
    """Set of held-out rendered scenes; 0 is the test split."""
    kind: Kind = "simple"
    """Kind of rendered world."""

    def opened(self) -> Backbone:
        """The model under its recipe, to compute with so many threads."""
        torch.set_num_threads(self.threads)
        return self.load(self.outline())

    def scenes(self, grid: Grid, variety: Variety = "one") -> HeldOutWorld:
        """The rendered scenes at a clip's size."""
        return HeldOutWorld(
            scene_set=self.scene_set,
            limit=self.limit,
            variety=variety,
            kind=self.kind,
            width=grid.width,
            height=grid.height,
            num_frames=grid.num_frames,
        )


@dataclass(frozen=True, kw_only=True)
class Options(StudiedModel):
    """Measure what is not yet in the file of rows, then write the table, the plot and the verdict."""

    vipseg: Path | None = None
    """A folder of VIPSeg, to study on its validation clips instead of rendered scenes."""
    variety: Variety = "one"
    """Kind of rendered scenes: one thing each, or in turn several, a part, a curved path, occlusion, a camera."""
    seeds: tuple[int, ...] = (817,)
    """Seeds of the noise, each for every scene; figures are means over them before scenes are drawn."""
    jobs: int = 1
    """Processes that make clips side by side, a share of the scenes each."""
    share: int | None = None
    """Make the clips of this share of the scenes alone, 0 to jobs - 1: what --jobs starts."""
    report: bool = False
    """Make nothing: write table and plot from the rows that are there, those of a study half done too."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise FieldError("jobs", f"must be at least 1, got {self.jobs}")
        if self.share is not None and not 0 <= self.share < self.jobs:
            raise FieldError("share", f"must be from 0 to jobs - 1, got {self.share} of {self.jobs}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question: variants of a method, and how they are drawn."""

    folder: str
    """Its folder under experiments/."""
    axis: str
    """Name of what varies, with its unit."""
    variants: Callable[[Outline], Mapping[str, Controller]]
    """Label -> controller, in the order of the table."""
    numeric: bool = False
    """True if labels are numbers, drawn along an axis."""
    default: str | None = None
    """The label whose figures decide whether the study can say anything; None: that of the recommended values."""
    method: str = "SG-I2V"
    """Name of the method whose variants they are."""
    note: str = ""
    """A remark below the table."""
    extra: tuple[ModelFree, ...] = ()
    """More rows without a model."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Label -> the model's settings that this variant changes."""
    costs: bool = False
    """Say time and memory too, and so make every clip anew: others may have been made on a busy machine."""
    frechet: bool = False
    """Say the Fréchet distance too, which few clips raise: only sets of one size compare."""
    options: Options = Options()
    """Options under which its rows, table and plot are committed beside it; otherwise all stays under out/."""

    def ships(self, options: Options) -> bool:
        """True if it is run as it is committed.

        How it is computed may differ, and the variety, which has files of its own.
        """
        free = {name: getattr(self.options, name) for name in _FREE}
        return dataclasses.replace(options, **free) == self.options

    def own(self, labels: Iterable[str]) -> list[str]:
        """The labels without those of every study."""
        return [label for label in labels if label not in ("none", *BASELINES, *self.extra)]

    def decisive(self, labels: Iterable[str]) -> str:
        """The label of the recommended values, unless the study names another."""
        return self.default or self.own(labels)[0]


def base_of(model: Outline | Backbone) -> SGI2V:
    """SG-I2V with what the model recommends."""
    controller = recommended("sg-i2v", model.settings.recommended)
    assert isinstance(controller, SGI2V)
    return controller


def grid_of(model: Outline | Backbone) -> Grid:
    """The clip's size that a study runs at: the model's own under the recipe."""
    settings = model.settings
    return model.grid(settings.width, settings.height, settings.num_frames)


def guided_steps(outline: Outline, controller: SGI2V) -> list[int]:
    """The steps still to go at which the controller optimises, first to last."""
    num = outline.settings.num_steps
    acts = controller.schedule(outline.levels(num, grid_of(outline))).acts
    return [num - index for index, guided in enumerate(acts) if guided]
