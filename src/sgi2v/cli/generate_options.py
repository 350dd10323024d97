"""Options of `sgi2v generate`: the library's own dataclasses, a model's recommendations their defaults."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, Positional, Suppress

from sgi2v.backbones import Outline, Settings, settings_of, settings_with_recipe
from sgi2v.backbones.registry import BUNDLED, names
from sgi2v.cli.options import to_be_said
from sgi2v.cli.prompts import NOTHING_SAID, MotionPrompts
from sgi2v.controllers import (
    COMBINATIONS,
    Controller,
    InTurn,
    controller_name,
    controllers,
    default_controller,
    recommended,
)
from sgi2v.errors import FieldError
from sgi2v.latents import check_takes_reference
from sgi2v.opening import ModelChoice
from sgi2v.planning import Sampling
from sgi2v.video_tag import Provenance, Recording


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Make a video of a scene's image in which its boxes follow their paths.

    Say the controller last, then its own options: sgi2v generate SCENE --seed 1 controller:sg-i2v --controller.lr 0.1
    """

    scene: Positional[Path]
    """A photo, of which --drag, --pin and --camera say what should move; or a scene.json, a folder that holds one, or a
    folder with img.png and traj.npy."""
    prompts: OmitArgPrefixes[MotionPrompts] = NOTHING_SAID
    prompt: str | None = None
    """Words, for a model that reads them, in place of the scene's own."""
    negative_prompt: str | None = None
    """Words that guidance leads away from, likewise."""
    reference: Path | None = None
    """A clip of what is wanted, for time-to-move, in place of the one that the scene makes or carries: a video or
    gif, a picture, or a folder of pictures in the order of their names (frame2 before frame10)."""
    reference_mask: Path | None = None
    """Places in which that clip is meant (white), likewise; one picture stands for all frames. Default: everywhere."""
    lora: tuple[str, ...] = ()
    """LoRA files for a video transformer: FILE.safetensors, or with a weight FILE.safetensors:0.8; of a model with two
    networks also with the one that it is for, FILE.safetensors:0.8:high or :low."""
    output: Path | None = None
    """The video (.mp4 or .gif), or a folder for PNG frames (a name without a suffix); replaced if it is there.
    Default: out/<name of the scene>.mp4."""
    record: Recording = "light"
    """Record in the video's file, from which sgi2v replay makes it again: light (with the picture as the model saw it),
    full (as it was given), or none."""
    provenance: Provenance = "on"
    """Signed credentials in the file and, in an mp4 or gif, an invisible mark in the pixels, or off: neither."""
    content_check: Path | None = None
    """A folder with a classifier of pictures that looks at photo and clip; what it takes for unsafe is not made, or not
    written (docs/provenance.md). Default: nothing is looked at."""
    content_labels: tuple[str, ...] = ()
    """Names of its unsafe classes; default: those with a usual name, as nsfw."""
    save_latents: Path | None = None
    """A file (.safetensors) for the run's noise and its latents, beside the video; replaced if it is there."""
    noise: Path | None = None
    """A file (.safetensors) whose tensor noise the run begins from, in place of what the seed gives."""
    reference_latents: Path | None = None
    """A file (.safetensors) whose tensor latents stand for the reference clip as the model would encode it, for
    time-to-move."""
    quiet: bool = False
    """Show no progress."""
    model: OmitArgPrefixes[ModelChoice]
    sampling: OmitArgPrefixes[Sampling]
    settings: Settings
    """Settings of the model; the defaults are what its folder recommends."""
    controller: Controller


def default_options(arguments: Sequence[str]) -> GenerateOptions:
    """The options before any is parsed, which depend on the backbone and recipe that `arguments` name; no scene.

    No model is loaded or fetched: of a hub's model that is not known here, the published values are shown.
    """
    backbone = _said(arguments, "--backbone") or ModelChoice.backbone
    recipe = _said(arguments, "--recipe")
    if backbone == BUNDLED or Path(backbone).is_dir():
        probed = "--no-probed" not in arguments
        settings = ModelChoice(backbone=backbone, recipe=recipe, probed=probed).outline().settings
    else:
        settings = settings_with_recipe(settings_of(backbone), recipe)
    known = backbone in (BUNDLED, *names()) or Path(backbone).is_dir()
    size = {name: getattr(settings, name) for name in Settings.SIZE} if known else {}
    kind = _options_for(settings)
    default = kind(
        scene=Path(),
        model=ModelChoice(),
        sampling=Sampling(**size),
        settings=vars(kind)[
            "settings"
        ],  # of the class without advice: of its parent, tyro would ask which of two is meant
        controller=default_controller(settings),
    )
    return to_be_said(default, "scene")


OPTIONS: Final = (GenerateOptions, MotionPrompts, ModelChoice, Sampling)
"""Classes whose fields are options before the method."""


def check_heeded(options: GenerateOptions, outline: Outline, controller: Controller) -> None:
    """FieldError for what was typed and this run would not use."""
    for option in ("prompt", "negative_prompt"):
        if getattr(options, option) and not outline.takes_text:
            spelt = option.replace("_", "-")
            raise FieldError(option, f"{outline.name} takes no text", f"leave --{spelt} out")
    # The name under which models keep classifier-free guidance, where they have it.
    if options.negative_prompt and getattr(outline.settings, "guidance_scale", 0) == 1:
        raise FieldError(
            "negative_prompt",
            "without guidance nothing leads away from it",
            "leave --negative-prompt out, or give --settings.guidance-scale above 1",
        )
    for option in ("reference", "reference_mask", "reference_latents"):
        if getattr(options, option) is not None:
            check_takes_reference(option, controller)


def _options_for(settings: Settings) -> type[GenerateOptions]:
    """The options for a model: its own settings, and every controller with what the model recommends for it."""
    named = dict(controllers()) | {name: _pair(name) for name in COMBINATIONS}
    # A class before its parents: tyro gives a default to the first kind that it is an instance of.
    kinds = sorted(named.items(), key=lambda item: -len(item[1].__mro__))
    choices = tuple(
        Annotated[
            kind,
            tyro.conf.subcommand(
                name,
                default=_as(kind, recommended(name, settings.recommended)),
                description=_first_line(kind),
            ),
        ]
        for name, kind in kinds
    )
    choice: Any = Union.__getitem__(choices)  # of a list, so not spelt as a type
    own = _without_advice(type(settings))
    space = {
        "__annotations__": {"settings": own, "controller": choice},
        "__doc__": GenerateOptions.__doc__,
        "settings": own(**{f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}),
    }
    return dataclass(frozen=True, kw_only=True)(type("GenerateOptions", (GenerateOptions,), space))


def _without_advice(kind: type[Settings]) -> type[Settings]:
    """The settings' class with those fields hidden that are said by other options: sizes and advice."""
    hidden = {f.name: f for f in dataclasses.fields(kind) if f.name in (*Settings.SIZE, *Settings.ADVICE)}
    hints: Any = get_type_hints(kind)  # types as values, which no checker follows
    suppress: Any = Suppress
    space: dict[str, Any] = {
        "__annotations__": {name: suppress[hints[name]] for name in hidden},
        "__doc__": kind.__doc__,
    }
    for name, field in hidden.items():
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
            space[name] = field
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, (kind,), space))


def _pair(name: str) -> type[InTurn]:
    """InTurn for one combination, whose two fields say which controllers they hold: so each has its options."""
    known = controllers()
    first, second = name.split("+")
    space = {
        "__annotations__": {"first": known[first], "second": known[second]},
        "__doc__": f"{_first_line(known[first])} Then: {_first_line(known[second])}",
    }
    return dataclass(frozen=True, kw_only=True)(type("InTurn", (InTurn,), space))


def _as(kind: type[Controller], controller: Controller) -> Controller:
    """The same controller as an instance of `kind`."""
    if type(controller) is kind:
        return controller
    return kind(**{f.name: getattr(controller, f.name) for f in dataclasses.fields(controller)})


def _first_line(kind: type[Controller]) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def changed_settings(options: GenerateOptions, default: GenerateOptions) -> dict[str, object]:
    """The model's settings that the person has changed."""
    before = dataclasses.asdict(default.settings)
    return {name: value for name, value in dataclasses.asdict(options.settings).items() if value != before[name]}


def needs_no_motion(options: GenerateOptions) -> bool:
    """True where the method steers by nothing that a scene says, or by a clip that is given."""
    return not options.controller.uses().motions or options.reference is not None


def sampling_said(options: GenerateOptions, arguments: Sequence[str]) -> Sampling:
    """The sampling with a size only where one is typed: else the model's own, or of a scene's aspect the picture's."""
    typed = any(_said(arguments, name) is not None for name in ("--width", "--height"))
    return options.sampling if typed else dataclasses.replace(options.sampling, width=None, height=None)


def names_controller(arguments: Sequence[str]) -> bool:
    """True where a method is typed, so that it is not the model's to choose."""
    return any(argument.startswith("controller:") for argument in arguments)


def chosen_controller(
    options: GenerateOptions, default: GenerateOptions, outline: Outline, *, named: bool = False
) -> Controller | None:
    """The controller as it was typed, None where it is left to the model.

    What was not typed is what the model recommends, which of a hub's may be known only now. ``named``: a method was
    typed, be it the default.
    """
    if not named and options.controller == default.controller:
        return None
    shown, now = default.settings.recommended, outline.settings.recommended
    if shown == now:
        return options.controller
    name = controller_name(options.controller)
    return _typed_over(options.controller, recommended(name, shown), recommended(name, now))


def _typed_over(typed: Controller, shown: Controller, now: Controller) -> Controller:
    """A controller with those fields of another that are not what was shown as its defaults."""
    if isinstance(typed, InTurn) and isinstance(shown, InTurn) and isinstance(now, InTurn):
        return InTurn(
            first=_typed_over(typed.first, shown.first, now.first),
            second=_typed_over(typed.second, shown.second, now.second),
        )
    pairs = {f.name: (getattr(typed, f.name), getattr(shown, f.name)) for f in dataclasses.fields(shown)}
    return dataclasses.replace(now, **{name: said for name, (said, before) in pairs.items() if said != before})


def _said(arguments: Sequence[str], option: str) -> str | None:
    """The last value of an option, read before the rest because the other defaults depend on it."""
    found = None
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            found = value if equals else next(iter(arguments[index + 1 :]), found)
    return found
