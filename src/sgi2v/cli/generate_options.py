"""What `sgi2v generate` accepts: the library's own dataclasses, a model's recommendations their defaults."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from tyro.conf import OmitArgPrefixes, Positional, Suppress

from sgi2v.backbones import SVDSettings, settings_of
from sgi2v.backbones.folder import BUNDLED, HUB_IDS
from sgi2v.cli.options import to_be_said
from sgi2v.controllers import CONTROLLERS, Controller, recommended
from sgi2v.generate import Sampling

if TYPE_CHECKING:
    AnyController = Controller
else:
    # A class before its parents: tyro gives a default to the first kind that it is an instance of.
    AnyController = Union[  # noqa: UP007 - of a list
        tuple(
            Annotated[kind, tyro.conf.subcommand(name, description=(kind.__doc__ or "").splitlines()[0])]
            for name, kind in sorted(CONTROLLERS.items(), key=lambda item: -len(item[1].__mro__))
        )
    ]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(SVDSettings):
    """What belongs to the model; the defaults are what its folder recommends."""

    # Said by --width, --height, --num-frames, --num-steps and by the controller's own options.
    width: Suppress[int] = 0
    height: Suppress[int] = 0
    num_frames: Suppress[int] = 0
    num_steps: Suppress[int] = 0
    recommended: Suppress[Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Make a video of a scene's image in which its boxes follow their paths.

    Say the controller last, then its own options: sgi2v generate SCENE --seed 1 controller:sg-i2v --controller.lr 0.1
    """

    scene: Positional[Path]
    """A scene.json, a folder that holds one, or a folder with img.png and traj.npy."""
    backbone: str = "bundled"
    """The model: bundled, svd, svd-xt, a folder in diffusers' Stable Video Diffusion layout, or a hub id."""
    output: Path | None = None
    """The video (.mp4 or .gif), or a folder for PNG frames (a name without a suffix); replaced if it is there.
    Default: out/<name of the scene>.mp4."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps …; default: the best that this machine has."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Number format of the networks; default: what suits the device."""
    quiet: bool = False
    """Show no progress."""
    sampling: OmitArgPrefixes[Sampling]
    settings: ModelOptions
    controller: AnyController


def default_options(arguments: Sequence[str]) -> GenerateOptions:
    """The options before any is parsed, which depend on the backbone that `arguments` name; scene is missing.

    No model is loaded or fetched: of a hub's model that is not known here, the published values are shown.
    """
    backbone = _backbone_in(arguments)
    settings = settings_of(backbone)
    shown = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    known = backbone in (BUNDLED, *HUB_IDS) or Path(backbone).is_dir()
    size = {name: shown[name] for name in ("num_steps", "width", "height", "num_frames")} if known else {}
    default = GenerateOptions(
        scene=Path(),
        sampling=Sampling(**size),
        settings=ModelOptions(**shown),
        controller=recommended("sg-i2v", settings.recommended),
    )
    return to_be_said(default, "scene")


def changed_settings(options: GenerateOptions, default: GenerateOptions) -> dict[str, Any]:
    """The model's settings that the person has changed."""
    before = dataclasses.asdict(default.settings)
    return {
        name: value for name, value in dataclasses.asdict(options.settings).items() if value != before[name]
    }


def _backbone_in(arguments: Sequence[str]) -> str:
    """The last value of --backbone, read before the rest because the other defaults depend on it."""
    found = GenerateOptions.backbone
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--backbone":
            found = value if equals else next(iter(arguments[index + 1 :]), found)
    return found
