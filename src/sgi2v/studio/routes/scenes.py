"""Routes for pictures and scenes: taken in, checked, imported and given back; no model runs here."""

import json
import re
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from sgi2v.camera import Camera, camera_motions
from sgi2v.errors import FieldError
from sgi2v.prompting.photo import command_of
from sgi2v.records import Json
from sgi2v.reference import read_clip
from sgi2v.scene import MAX_KEYS, MAX_MOTIONS, Curve, Easing, Fit, Kind, Scene
from sgi2v.scene_io import FORMAT, load_scene, scene_to_dict
from sgi2v.signatures import kind_of
from sgi2v.studio.fields import describe
from sgi2v.studio.pictures import PREFIX, TYPES, picture_json
from sgi2v.studio.problems import Problem
from sgi2v.studio.routes import PICTURE_ID, PictureId, TheStudio, may_say, name_of, raw
from sgi2v.studio.shapes import (
    Clip,
    CommandGiven,
    Examples,
    Imported,
    Info,
    JobAsked,
    KeepAsked,
    MaskAsked,
    Motions,
    MotionsAsked,
    Origin,
    Outline,
    Picture,
    Planned,
    SceneGiven,
)
from sgi2v.studio.studio import Studio
from sgi2v.traj import load_traj

router = APIRouter(prefix="/api", generate_unique_id_function=name_of)
SCENES = Path(__file__).parents[2] / "assets" / "scenes"
_EMPTY = MappingProxyType({"format": FORMAT, "version": 1})
_FULL = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.INSUFFICIENT_STORAGE)


@router.get("/info", responses=may_say())
def info(studio: TheStudio, recipe: Annotated[str | None, Query(max_length=100)] = None) -> Info:
    """List what this studio offers: models, methods with all their fields, limits; with a recipe, its defaults."""
    limits = studio.limits
    return Info(
        **studio.engine.info(recipe),
        limits={
            "image_bytes": limits.image_bytes,
            "image_pixels": limits.image_pixels,
            "video_bytes": limits.video_bytes,
            "scene_bytes": limits.scene_bytes,
            "json_bytes": limits.json_bytes,
            "video_pixels": limits.video_pixels,
            "queued_jobs": limits.queued_jobs,
            "history": limits.history,
            "streams": limits.streams,
            "motions": MAX_MOTIONS,
            "keys": MAX_KEYS,
        },
        notice=studio.table.notice,
        camera=describe(Camera, {}),
        easings=list(get_args(Easing)),
        curves=list(get_args(Curve)),
        kinds=list(get_args(Kind)),
        fits=list(get_args(Fit)),
    )


@router.get("/examples", responses=may_say(*_FULL))
def examples(studio: TheStudio) -> Examples:
    """The scenes that ship with the project."""
    found = []
    for folder in sorted(path.parent for path in SCENES.glob("*/scene.json")):
        found.append({"name": folder.name, **_given(studio, load_scene(folder))})
    return Examples.model_validate({"examples": found})


@router.post(
    "/images",
    status_code=HTTPStatus.CREATED,
    responses=may_say(*_FULL),
    openapi_extra=raw("application/octet-stream"),
)
async def add_image(request: Request, studio: TheStudio) -> Picture:
    """Keep a picture: PNG, JPEG, WEBP, BMP, TIFF or the first frame of a GIF. The same picture has the same id."""
    async with _received(request, studio) as file:
        name, image = await run_in_threadpool(studio.pictures.add, file)
    return Picture(**picture_json(name, image))


@router.get(
    "/images/{picture_id}",
    response_class=FileResponse,
    responses={**may_say(HTTPStatus.NOT_FOUND), 200: {"content": {kind: {} for kind in TYPES.values()}}},
)
def image(picture_id: PictureId, studio: TheStudio) -> FileResponse:
    """A picture that is kept, as it came or as PNG."""
    path = studio.pictures.path(picture_id)
    if path is None:
        raise Problem(HTTPStatus.NOT_FOUND, "image: it is not here any more; upload it again", "image")
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)


@router.post("/keep", status_code=HTTPStatus.NO_CONTENT, responses=may_say(*_FULL))
def keep(asked: KeepAsked, studio: TheStudio) -> None:
    """Say which pictures the work of a page needs, in place of what it said before: they stay for a year."""
    studio.table.claim_pictures(asked.page, asked.pictures)


@router.post("/plan", responses=may_say(*_FULL))
def plan(asked: JobAsked, studio: TheStudio) -> Planned:
    """Check a scene and settings as a job would be, and say what it would do: boxes and speeds for every frame."""
    request = asked.model_dump()
    request["scene"], scene = studio.pictures.checked(request["scene"])
    return Planned(**studio.engine.plan(request, scene), scene=request["scene"])


@router.post("/camera", responses=may_say(*_FULL))
def camera(asked: MotionsAsked, studio: TheStudio) -> Motions:
    """A camera preset as the ordinary boxes it becomes, on background that no object of the scene meets."""
    _, scene = studio.pictures.checked(asked.scene)
    motions = camera_motions(
        Camera(**asked.camera.model_dump()),
        scene.image.size,
        avoid=[motion for motion in scene.motions if motion.kind == "object"],
        columns=asked.columns,
        rows=asked.rows,
        fraction=asked.fraction,
    )
    alone = Scene(image=scene.image, motions=motions)
    return Motions(motions=scene_to_dict(alone, embed=False)["motions"])


@router.post("/mask", responses=may_say(*_FULL))
def mask(asked: MaskAsked, studio: TheStudio) -> Outline:
    """The outline of the thing in a box or under a point, found by GrabCut, as a picture for the motion's mask."""
    from sgi2v.prompting.clicks import MARGIN, box_of, grab_cut_at  # loads OpenCV
    from sgi2v.segmentation import grab_cut

    motions = [] if asked.box is None else [{"box": asked.box}]
    _, scene = studio.pictures.checked({**_EMPTY, "image": asked.image, "motions": motions})
    box = scene.motions[0].box if scene.motions else None
    if asked.at is not None:
        x, y = asked.at
        if not (0 <= x < scene.image.width and 0 <= y < scene.image.height):
            raise FieldError("at", f"{x:g},{y:g} lies beside the picture", "click on a thing in it")
        outline = grab_cut_at(scene.image, (x, y), box)
    elif box is not None:
        outline = grab_cut(scene.image, box)
    else:
        raise FieldError("at", "neither a point nor a box", "click on a thing, or give its box")
    name, found = studio.pictures.add_pixels(outline)
    return Outline(**picture_json(name, found), box=asdict(box or box_of(outline, MARGIN)))


@router.post("/import/clip", responses=may_say(*_FULL), openapi_extra=raw("application/octet-stream"))
async def import_clip(
    request: Request, studio: TheStudio, masks: Annotated[bool, Query(description="read as masks")] = False
) -> Clip:
    """The frames of a video or gif, or one picture, for a scene's reference: its frames, or its masks."""
    return Clip.model_validate(await _imported(request, studio, partial(_clip, masks=masks)))


@router.post("/import/scene", responses=may_say(*_FULL), openapi_extra=raw("application/json"))
async def import_scene(request: Request, studio: TheStudio) -> SceneGiven:
    """Take in a scene.json with its pictures embedded."""
    return SceneGiven.model_validate(await _imported(request, studio, _scene))


@router.post("/import/traj", responses=may_say(*_FULL), openapi_extra=raw("application/octet-stream"))
async def import_traj(
    request: Request,
    studio: TheStudio,
    image: Annotated[str, Query(pattern=PICTURE_ID, description="id of its picture, uploaded before")],
) -> SceneGiven:
    """Take in a traj.npy as published with SG-I2V, float64 [boxes, 2 + frames, 2]."""
    return SceneGiven.model_validate(await _imported(request, studio, partial(_traj, image=image)))


@router.post("/import/video", responses=may_say(*_FULL), openapi_extra=raw("application/octet-stream"))
async def import_video(request: Request, studio: TheStudio) -> Imported:
    """The scene and settings that an mp4 or gif made by this project carries."""
    return Imported.model_validate(await _imported(request, studio, _record))


@router.post("/verify", responses=may_say(*_FULL), openapi_extra=raw("application/octet-stream"))
async def verify_clip(request: Request, studio: TheStudio) -> Origin:
    """Say where a clip is from: its credentials, the mark in its pixels, its record; nothing of it is kept."""
    return Origin.model_validate(await _imported(request, studio, _origin))


@router.post("/export/scene", responses=may_say(*_FULL))
def export_scene(scene: Json, studio: TheStudio) -> JSONResponse:
    """A scene with its pictures in it, as a file to keep."""
    _, checked = studio.pictures.checked(scene)
    headers = {"Content-Disposition": 'attachment; filename="scene.json"'}
    return JSONResponse(scene_to_dict(checked, embed=True), headers=headers)


@router.post("/export/command", responses=may_say(*_FULL))
def export_command(
    scene: Json, studio: TheStudio, photo: Annotated[str, Query(max_length=300, description="the photo's name")]
) -> CommandGiven:
    """A scene as the command line that makes it of its photo, and what of it that cannot say."""
    _, checked = studio.pictures.checked(scene)
    command = command_of(checked, photo)
    return CommandGiven(command=command.text, left_out=list(command.left_out))


@asynccontextmanager
async def _received(request: Request, studio: Studio) -> AsyncIterator[Path]:
    """A request's body as a file, which goes at the end: it is never held in memory."""
    studio.check_room()
    path = studio.settings.data / "temporary" / uuid.uuid4().hex
    try:
        with path.open("wb") as file:
            async for part in request.stream():
                file.write(part)
        if not path.stat().st_size:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "body: it is empty; send the file's bytes", "body")
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _imported(request: Request, studio: Studio, read: Callable[[Studio, Path], Json]) -> Json:
    def one_by_one(file: Path) -> Json:
        with studio.importing:
            return read(studio, file)

    async with _received(request, studio) as file:
        return await run_in_threadpool(one_by_one, file)


def _scene(studio: Studio, file: Path) -> Json:
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"scene: this is not JSON ({error})", "scene") from error
    return _with_image(studio, *studio.pictures.checked(found))


def _traj(studio: Studio, file: Path, image: str) -> Json:
    picture = studio.pictures.path(image)
    if picture is None:
        raise FieldError("image", "it is not here", "upload the picture first")
    with _beside(studio) as folder:
        file.replace(folder / "traj.npy")
        shutil.copyfile(picture, folder / "img.png")
        return _given(studio, load_traj(folder))


def _clip(studio: Studio, file: Path, masks: bool) -> Json:
    with _beside(studio) as folder:
        file.replace(folder / "clip")
        pictures = read_clip("clip", [folder / "clip"], mask=masks)
    width, height = pictures[0].size
    return {
        "pictures": [PREFIX + studio.pictures.add_pixels(p)[0] for p in pictures],
        "width": width,
        "height": height,
    }


def _record(studio: Studio, file: Path) -> Json:
    from sgi2v.video import read_run  # loads torch

    with file.open("rb") as opened:
        kind = kind_of(opened)
    if kind not in ("mov", "GIF"):
        raise FieldError("video", "this is neither an mp4 nor a gif", "give one that sgi2v wrote")
    with _beside(studio) as folder:
        file.replace(folder / "video")
        record = read_run(folder / "video")
    found = studio.engine.read_record(record)
    # A record's scene has its pictures in it; a path in there is never followed.
    return {**found, **_with_image(studio, *studio.pictures.checked(found["scene"]))}


def _origin(studio: Studio, file: Path) -> Json:
    from sgi2v.provenance.verify import verify  # loads torch

    with _beside(studio) as folder:
        file.replace(folder / "clip")
        found = verify(folder / "clip")
    return {"changed": found.is_changed, "answers": found.answers()}


def _given(studio: Studio, scene: Scene) -> Json:
    """A scene from this machine, its pictures kept."""
    data = scene_to_dict(scene, embed=False)
    name, image = studio.pictures.add_pixels(scene.image)
    data["image"] = PREFIX + name
    for motion, values in zip(scene.motions, data["motions"], strict=True):
        if motion.mask is not None:
            values["mask"] = PREFIX + studio.pictures.add_pixels(motion.mask)[0]
    for part, names in data.get("reference", {}).items():
        kept = [studio.pictures.add_pixels(picture)[0] for picture in getattr(scene.reference, part)]
        names[:] = [PREFIX + each for each in kept]
    return {"scene": data, "image": picture_json(name, image)}


def _with_image(studio: Studio, inside: Json, scene: Scene) -> Json:
    return {"scene": inside, "image": picture_json(inside["image"].removeprefix(PREFIX), scene.image)}


@contextmanager
def _beside(studio: Studio) -> Iterator[Path]:
    """A temporary folder; errors about files in it are told without its path."""
    with tempfile.TemporaryDirectory(dir=studio.settings.data / "temporary") as folder:
        try:
            yield Path(folder)
        except FieldError as error:
            problem, remedy = (
                re.sub(rf"{re.escape(folder)}[\\/]?", "", text) for text in (error.problem, error.remedy)
            )
            raise FieldError(error.field, problem, remedy) from error
