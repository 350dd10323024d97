"""Routes for what a job has made: its exact frames, videos, record and scene, and what it looks like so far."""

import io
import zipfile
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, JSONResponse, Response

from sgi2v.records import Json
from sgi2v.scene_io import scene_to_dict
from sgi2v.studio.problems import Problem
from sgi2v.studio.routes import JobId, TheStudio, may_say, name_of
from sgi2v.studio.routes.jobs import found
from sgi2v.studio.studio import Studio
from sgi2v.studio.table import Row

router = APIRouter(prefix="/api/jobs/{job_id}", generate_unique_id_function=name_of)
Download = Annotated[bool, Query(description="as a file to keep")]
_KEPT = "private, max-age=31536000, immutable"  # a result never changes


def _gives(kind: str, *statuses: HTTPStatus) -> dict[int | str, Json]:
    return {
        **may_say(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, *statuses),
        200: {"content": {kind: {}}, "description": "the file"},
    }


@router.get("/frames/{index}.png", response_class=FileResponse, responses=_gives("image/png"))
def frame(
    job_id: JobId, index: Annotated[int, Path(ge=0, lt=10_000)], studio: TheStudio, download: Download = False
) -> FileResponse:
    """One frame, exactly as computed."""
    row = _done(studio, job_id)
    if index >= row["result"]["num_frames"]:
        raise Problem(HTTPStatus.NOT_FOUND, f"index: the last frame is {row['result']['num_frames'] - 1}", "index")
    return _file(studio, row, f"frames/frame_{index:04d}.png", "image/png", f"-{index:04d}.png", download)


@router.get("/video.mp4", response_class=FileResponse, responses=_gives("video/mp4"))
def video_mp4(job_id: JobId, studio: TheStudio, download: Download = False) -> FileResponse:
    """The video; it carries the record that makes it again."""
    return _file(studio, _done(studio, job_id), "video.mp4", "video/mp4", ".mp4", download)


@router.get("/video.gif", response_class=FileResponse, responses=_gives("image/gif"))
def video_gif(job_id: JobId, studio: TheStudio, download: Download = False) -> FileResponse:
    """The video as a gif, with the record too."""
    return _file(studio, _done(studio, job_id), "video.gif", "image/gif", ".gif", download)


@router.get("/run.json", response_class=FileResponse, responses=_gives("application/json"))
def run_json(job_id: JobId, studio: TheStudio, download: Download = False) -> FileResponse:
    """The record of the run, which lies beside the frames."""
    return _file(studio, _done(studio, job_id), "frames/run.json", "application/json", "-run.json", download)


@router.get("/scene.json", response_class=JSONResponse, responses=_gives("application/json"))
def scene_json(job_id: JobId, studio: TheStudio, download: Download = False) -> JSONResponse:
    """The job's scene with its pictures in it, whatever became of the job."""
    row = found(studio, job_id)
    scene = studio.pictures.scene_of(row["request"]["scene"])
    return JSONResponse(scene_to_dict(scene, embed=True), headers=_headers(row, "-scene.json", download))


@router.get("/frames.zip", response_class=Response, responses=_gives("application/zip"))
def frames_zip(job_id: JobId, studio: TheStudio, download: Download = False) -> Response:
    """All frames and the record, as a zip."""
    row = _done(studio, job_id)
    folder = studio.jobs.result(job_id) / "frames"
    file = io.BytesIO()
    try:
        with zipfile.ZipFile(file, "w") as bundle:  # stored: PNG is compressed already
            for path in sorted(folder.iterdir()):
                bundle.write(path, path.name)
    except FileNotFoundError:
        raise _gone() from None
    return Response(file.getvalue(), media_type="application/zip", headers=_headers(row, "-frames.zip", download))


@router.get(
    "/preview.png",
    response_class=Response,
    responses={**may_say(HTTPStatus.NOT_FOUND), 200: {"content": {"image/png": {}}}},
)
def preview(job_id: JobId, studio: TheStudio, v: Annotated[str, Query(max_length=20)] = "") -> Response:
    """The middle frame as the model sees it so far, while the job runs; v is only there to make addresses differ."""
    live = studio.jobs.live(job_id)
    if live is None or live.preview is None:
        raise Problem(HTTPStatus.NOT_FOUND, "preview: there is none; it comes while the job runs", "job_id")
    return Response(live.preview, media_type="image/png")


def _done(studio: Studio, job_id: str) -> Row:
    row = found(studio, job_id)
    if row["state"] != "done":
        raise Problem(HTTPStatus.CONFLICT, f"the job is {row['state']}; only one that is done has files", "job_id")
    return row


def _file(studio: Studio, row: Row, name: str, kind: str, ending: str, download: bool) -> FileResponse:
    path = studio.jobs.result(row["id"]) / name
    if not path.is_file():
        raise _gone()
    return FileResponse(path, media_type=kind, headers=_headers(row, ending, download))


def _headers(row: Row, ending: str, download: bool) -> dict[str, str]:
    named = {"Content-Disposition": f'attachment; filename="sgi2v-{row["number"]}{ending}"'} if download else {}
    return {"Cache-Control": _KEPT, **named}


def _gone() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "the file is not in the data folder any more; start the job again", "job_id")
