"""What `sgi2v generate` accepts: the library's own dataclasses, a model's recommendations their defaults."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.conf import OmitArgPrefixes, Positional, Suppress

from sgi2v.backbones import SVDSettings, settings_of, settings_with_recipe
from sgi2v.backbones.folder import BUNDLED, HUB_IDS
from sgi2v.backbones.memory import Memory
from sgi2v.cli.options import to_be_said
from sgi2v.controllers import COMBINATIONS, CONTROLLERS, Controller, InTurn, recommended
from sgi2v.generate import Sampling


@dataclass(frozen=True, kw_only=True)
class ModelOptions(SVDSettings):
    """What belongs to the model; the defaults are what its folder recommends."""

    # Said by --width, --height, --num-frames, --num-steps and by the controller's own options.
    width: Suppress[int] = 0
    height: Suppress[int] = 0
    num_frames: Suppress[int] = 0
    num_steps: Suppress[int] = 0
    recommended: Suppress[Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    recipes: Suppress[Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    notes: Suppress[Mapping[str, str]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Make a video of a scene's image in which its boxes follow their paths.

    Say the controller last, then its own options: sgi2v generate SCENE --seed 1 controller:sg-i2v --controller.lr 0.1
    """

    scene: Positional[Path]
    """A scene.json, a folder that holds one, or a folder with img.png and traj.npy."""
    backbone: str = "bundled"
    """The model: bundled, svd, svd-xt, a folder in diffusers' Stable Video Diffusion layout, or a hub id."""
    recipe: str | None = None
    """One of the model's recipes: paper (SG-I2V's published settings), quick (far fewer operations), or another that
    sgi2v info names; default: its own settings."""
    reference: Path | None = None
    """A crude clip of what is wanted, for time-to-move, in place of the one that the scene makes or carries: an mp4,
    a gif, a picture, or a folder of pictures in the order of their names."""
    reference_mask: Path | None = None
    """Where that clip is meant (white), likewise; one picture stands for all frames. Default: everywhere."""
    output: Path | None = None
    """The video (.mp4 or .gif), or a folder for PNG frames (a name without a suffix); replaced if it is there.
    Default: out/<name of the scene>.mp4."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps …; default: the best that this machine has."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Number format of the networks; default: what suits the device."""
    memory: Memory = "auto"
    """How sparing of the device's memory: fast, balanced, low, or auto: the first of these that fits what is free. The
    video is the same; the time is not."""
    compile: bool = False
    """Have torch compile parts of the network as they first run: minutes, so for many clips on a GPU. Not with low."""
    quiet: bool = False
    """Show no progress."""
    sampling: OmitArgPrefixes[Sampling]
    settings: ModelOptions
    controller: Controller


def default_options(arguments: Sequence[str]) -> GenerateOptions:
    """The options before any is parsed, which depend on the backbone and recipe that `arguments` name; no scene.

    No model is loaded or fetched: of a hub's model that is not known here, the published values are shown.
    """
    backbone = _said(arguments, "--backbone") or GenerateOptions.backbone
    settings = settings_with_recipe(settings_of(backbone), _said(arguments, "--recipe"))
    shown = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    known = backbone in (BUNDLED, *HUB_IDS) or Path(backbone).is_dir()
    size = {name: shown[name] for name in ("num_steps", "width", "height", "num_frames")} if known else {}
    default = _options_for(settings.recommended)(
        scene=Path(),
        sampling=Sampling(**size),
        settings=ModelOptions(**shown),
        controller=recommended("sg-i2v", settings.recommended),
    )
    return to_be_said(default, "scene")


def _options_for(values: Mapping[str, Mapping[str, Any]]) -> type[GenerateOptions]:
    """The options with every controller as a choice, each one's defaults what the model recommends for it."""
    named = {name: CONTROLLERS[name] for name in CONTROLLERS} | {name: _pair(name) for name in COMBINATIONS}
    # A class before its parents: tyro gives a default to the first kind that it is an instance of.
    kinds = sorted(named.items(), key=lambda item: -len(item[1].__mro__))
    choices = tuple(
        Annotated[
            kind,
            tyro.conf.subcommand(
                name, default=_as(kind, recommended(name, values)), description=_first_line(kind)
            ),
        ]
        for name, kind in kinds
    )
    choice: Any = Union.__getitem__(choices)  # of a list, so not spelt as a type
    space = {"__annotations__": {"controller": choice}, "__doc__": GenerateOptions.__doc__}
    return dataclass(frozen=True, kw_only=True)(type("GenerateOptions", (GenerateOptions,), space))


def _pair(name: str) -> type[InTurn]:
    """InTurn for one combination, whose two fields say which controllers they hold: so each has its options."""
    first, second = name.split("+")
    space = {
        "__annotations__": {"first": CONTROLLERS[first], "second": CONTROLLERS[second]},
        "__doc__": f"{_first_line(CONTROLLERS[first])} Then: {_first_line(CONTROLLERS[second])}",
    }
    return dataclass(frozen=True, kw_only=True)(type("InTurn", (InTurn,), space))


def _as(kind: type[Controller], controller: Controller) -> Controller:
    """The same controller as an instance of `kind`."""
    if type(controller) is kind:
        return controller
    return kind(**{f.name: getattr(controller, f.name) for f in dataclasses.fields(controller)})


def _first_line(kind: type[Controller]) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def changed_settings(options: GenerateOptions, default: GenerateOptions) -> dict[str, Any]:
    """The model's settings that the person has changed."""
    before = dataclasses.asdict(default.settings)
    return {
        name: value for name, value in dataclasses.asdict(options.settings).items() if value != before[name]
    }


def _said(arguments: Sequence[str], option: str) -> str | None:
    """The last value of an option, read before the rest because the other defaults depend on it."""
    found = None
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            found = value if equals else next(iter(arguments[index + 1 :]), found)
    return found
