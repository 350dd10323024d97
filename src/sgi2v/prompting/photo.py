"""A photo is a scene: drags, pins and a camera in short texts, put on a picture; and a scene as such a command."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from sgi2v.errors import FieldError, within
from sgi2v.files import is_picture
from sgi2v.images import load_image
from sgi2v.prompting.cameras import camera_in, camera_text, parse_camera, with_camera
from sgi2v.prompting.drags import EXAMPLE, Drag
from sgi2v.scene import MAX_MOTIONS, Fit, Motion, Scene

if TYPE_CHECKING:
    from sgi2v.images import Source

PHOTO_FIT: Final[Fit] = "aspect"
"""The fit of a scene that is made of a photo: the clip takes its shape."""
ADD: Final = f'add --drag {EXAMPLE} (a box and where it goes), --camera "zoom 1.2", or controller:none'


def motions_of(
    size: tuple[int, int],
    *,
    drags: Sequence[str] = (),
    pins: Sequence[str] = (),
    camera: str = "",
    before: tuple[Motion, ...] = (),
) -> tuple[Motion, ...]:
    """The motions that texts say on a picture of ``size``, behind those ``before`` them.

    Drags first, then pins, then the camera's boxes, which avoid them all. FieldError in one line, naming the text by
    its place (``drags[2]``), for one that is not understood, lies off the picture, or speaks of a box that another has.
    """
    count = len(drags) + len(pins) + len(before)
    if count > MAX_MOTIONS:
        name = "drags" if len(drags) >= len(pins) else "pins"
        raise FieldError(name, f"{count} motions", f"give at most {MAX_MOTIONS}")
    places: dict[tuple[object, ...], str] = {}
    made = list(before)
    for kind, texts in (("drags", drags), ("pins", pins)):
        if isinstance(texts, str):
            raise FieldError(kind, "is one text, not a list of them", f"give [{texts!r}]"[:80])
        for index, text in enumerate(texts):
            place = f"{kind}[{index}]"
            with within(place):
                drag = Drag.parse(text)
                _check_stops(kind, drag)
                motion = drag.motion(size)
                sides = motion.box.left, motion.box.top, motion.box.right, motion.box.bottom
                if sides in places:
                    raise FieldError("", f"is of the same box as {places[sides]}", "say one thing of a box")
                places[sides] = place
            made.append(motion)
    if camera:
        with within("camera"):
            return with_camera(tuple(made), parse_camera(camera, size), size)
    return tuple(made)


def _check_stops(kind: str, drag: Drag) -> None:
    if kind == "drags" and not drag.stops:
        raise FieldError("", f"{drag} goes nowhere", f"say where to, as in {EXAMPLE}; for a pin --pin")
    if kind == "pins" and drag.stops:
        raise FieldError("", "a pin stays where it is", "leave -> and what follows out, or say --drag")


def scene_of(
    photo: "Source | Image.Image",
    *,
    drags: Sequence[str] = (),
    pins: Sequence[str] = (),
    camera: str = "",
    prompt: str = "",
    fit: Fit = PHOTO_FIT,
) -> Scene:
    """The scene of a photo (a path, a file's bytes or a picture) and what texts say of it; see :meth:`Scene.of`."""
    image = photo if isinstance(photo, Image.Image) else load_image(photo)
    motions = motions_of(image.size, drags=drags, pins=pins, camera=camera)
    return Scene(image=image, motions=motions, fit=fit, prompt=prompt)


def with_motions(scene: Scene, *, drags: Sequence[str] = (), pins: Sequence[str] = (), camera: str = "") -> Scene:
    """A scene and what texts say besides of it."""
    if not (drags or pins or camera):
        return scene
    motions = motions_of(scene.image.size, drags=drags, pins=pins, camera=camera, before=scene.motions)
    return replace(scene, motions=motions)


def said_nothing(path: str | os.PathLike[str]) -> FieldError:
    """The mistake of a photo of which nobody says what should move, with what to add."""
    return FieldError("scene", f"{Path(path).name} is a photo, and nothing is said to move in it", ADD)


def is_photo(path: str | os.PathLike[str]) -> bool:
    """True for a picture's file, by its content."""
    return is_picture(Path(path))


@dataclass(frozen=True, kw_only=True)
class Command:
    """A scene as a command."""

    text: str
    """For a POSIX shell."""
    left_out: tuple[str, ...] = ()
    """Parts of the scene that it cannot say."""


def command_of(scene: Scene, photo: str, command: str = "generate") -> Command:
    """The command line that makes this scene of its photo, whose path is ``photo``; motions are equal but for rounding.

    A camera's boxes are one ``--camera`` where they are one, else a drag each.
    """
    camera = camera_in(scene)
    motions = [one for one in scene.motions if camera is None or one.kind == "object"]
    options = [("--drag" if motion.path else "--pin", str(Drag.of(motion))) for motion in motions]
    options += [("--camera", camera_text(camera))] if camera else []
    options += [("--fit", scene.fit)] if scene.fit != PHOTO_FIT else []
    options += [("--prompt", scene.prompt)] if scene.prompt else []
    options += [("--negative-prompt", scene.negative_prompt)] if scene.negative_prompt else []
    left_out = ["masks"] if any(motion.mask is not None for motion in scene.motions) else []
    left_out += ["reference"] if scene.reference is not None else []
    words = ["sgi2v", command, shlex.quote(photo)]
    # A value that begins with a dash would be taken for an option, were it a word of its own.
    words += [f"{name}{'=' if value.startswith('-') else ' '}{shlex.quote(value)}" for name, value in options]
    return Command(text=" ".join(words), left_out=tuple(left_out))
