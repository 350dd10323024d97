"""Options that say in short texts what should move, shared by the commands that take a scene or a photo."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tyro.conf import UseAppendAction

from sgi2v.files import is_picture
from sgi2v.scene import Fit

if TYPE_CHECKING:
    from sgi2v.exchange import Exchanged
    from sgi2v.scene import Scene


@dataclass(frozen=True, kw_only=True)
class MotionPrompts:
    """Short texts that say what should move in a photo, or besides in a scene (docs/say.md)."""

    drag: UseAppendAction[tuple[str, ...]] = ()
    """A box (left,top,right,bottom) or point (x,y), in pixels of the photo or per cent of its sides, and where its
    middle goes: "30%,40%,60%,80% -> 70%,60%". More stops, @0.5 for a time (0 to 1), scale 1.2 and ease in-out may
    follow. Say --drag again for another."""
    pin: UseAppendAction[tuple[str, ...]] = ()
    """A box or point that stays where it is. Say --pin again for another."""
    camera: str = ""
    """Moves of the camera: "zoom 1.2, pan right 10%, roll 5, ease in-out"."""
    depth: Path | None = None
    """A depth picture (nearer is brighter), or a folder of Depth Anything in transformers' layout that makes one:
    things of no said size grow and shrink as they come and go over the ground, and nearer ones pass in front."""
    fit: Fit | None = None
    """Treatment of a picture that has not the model's shape: stretch, cover, contain, or aspect, with which the video
    takes the picture's. Default: the scene's own, of a photo aspect."""

    @property
    def is_said(self) -> bool:
        """True where something is said to move."""
        return bool(self.drag or self.pin or self.camera)


NOTHING_SAID: Final = MotionPrompts()
"""No text at all."""


def opened_scene(path: Path, prompts: MotionPrompts, *, may_rest: bool = False) -> Scene:
    """The scene of a file or folder, or of a photo, with what is said besides.

    FieldError, saying what to add, for a photo of which nothing is said, unless it ``may_rest``.
    """
    from sgi2v.prompting.photo import said_nothing, scene_of, with_motions
    from sgi2v.scene_io import load_scene

    if prompts.depth is not None:
        from sgi2v.prompting.depth import check_depth

        check_depth(prompts.depth)
    texts = {"drags": prompts.drag, "pins": prompts.pin}
    if is_picture(path):
        if not (prompts.is_said or may_rest):
            raise said_nothing(path)
        scene = scene_of(path, drags=prompts.drag, pins=prompts.pin, camera=prompts.camera)
    else:
        scene = with_motions(load_scene(path), **texts, camera=prompts.camera)
    return _finished(scene, prompts)


def _finished(scene: Scene, prompts: MotionPrompts) -> Scene:
    if prompts.depth is not None:
        from sgi2v.prompting.depth import depth_of, with_depth

        scene = with_depth(scene, depth_of(prompts.depth, scene.image))
    return scene if prompts.fit is None else replace(scene, fit=prompts.fit)


def opened_exchange(path: Path, prompts: MotionPrompts, photo: Path | None) -> Exchanged:
    """A photo, or a scene of any form that others keep, with what is said besides, and what was lost in reading."""
    from sgi2v.exchange import Exchanged, read_scene
    from sgi2v.prompting.photo import with_motions

    if is_picture(path):
        return Exchanged(scene=opened_scene(path, prompts), form="scene", lost=())
    found = read_scene(path, photo=photo)
    scene = with_motions(found.scene, drags=prompts.drag, pins=prompts.pin, camera=prompts.camera)
    return replace(found, scene=_finished(scene, prompts))


def pictures_at(path: Path, form: str = "scene") -> frozenset[Path]:
    """The files that writing a scene's new form may not touch: its pictures, or the photo itself."""
    from sgi2v.scene_io import pictures_of

    if is_picture(path):
        return frozenset({path.resolve()})
    if form != "scene":  # pictures in another form's folder, all of them
        folder = path if path.is_dir() else path.parent
        return frozenset(file.resolve() for file in folder.iterdir() if is_picture(file))
    return pictures_of(path)
