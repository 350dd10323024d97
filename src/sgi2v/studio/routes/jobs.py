"""Routes for jobs: sent, listed, cancelled, tried again, forgotten; and the stream that tells what happens to them."""

import hashlib
import json
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sgi2v.records import Json
from sgi2v.studio.events import Listening
from sgi2v.studio.problems import Problem
from sgi2v.studio.routes import JobId, TheStudio, may_say, name_of
from sgi2v.studio.shapes import JobAsked, JobGiven, JobList, job_json
from sgi2v.studio.studio import Studio
from sgi2v.studio.table import OVER, Row

router = APIRouter(prefix="/api", generate_unique_id_function=name_of)
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7e]+$",
        description="the same key and payload again give the same job",
    ),
]
_SUBMITS = (HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.INSUFFICIENT_STORAGE)  # fmt: skip


class EventStream(StreamingResponse):
    """A page's stream, which gives its place back however the page goes."""

    media_type = "text/event-stream"

    def __init__(self, listening: Listening) -> None:
        super().__init__(listening)
        self._listening = listening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it until one of the two ends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._listening.aclose()


@router.post(
    "/jobs",
    status_code=HTTPStatus.CREATED,
    responses={**may_say(*_SUBMITS), 200: {"model": JobGiven, "description": "sent before with this key"}},
)
def submit(asked: JobAsked, studio: TheStudio, response: Response, key: Key = None) -> JobGiven:
    """Queue a job. With the key and payload of an earlier one that one is given back, with another payload 409."""
    request = asked.model_dump()
    payload = _digest(request)
    if key is not None and (row := studio.table.known(key, payload)):
        response.status_code = HTTPStatus.OK
        return _given(studio, row)
    studio.check_room()
    request["scene"], scene = studio.pictures.checked(request["scene"])
    plan = studio.engine.plan(request, scene)
    return _queue(studio, response, request=request, plan=plan, payload=payload, key=key)


@router.get("/jobs", responses=may_say())
def jobs(
    studio: TheStudio,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="a job's number: only earlier ones")] = None,
) -> JobList:
    """Jobs, newest first."""
    rows = studio.table.newest(limit + 1, before)
    return JobList.model_validate({"jobs": [studio.summary(row) for row in rows[:limit]], "more": len(rows) > limit})


@router.get("/jobs/{job_id}", responses=may_say(HTTPStatus.NOT_FOUND))
def job(job_id: JobId, studio: TheStudio) -> JobGiven:
    """One job with what was asked for."""
    return _given(studio, found(studio, job_id))


@router.post("/jobs/{job_id}/cancel", responses=may_say(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
def cancel(job_id: JobId, studio: TheStudio) -> JobGiven:
    """Stop a job: at once while it waits, after the step it is at while it runs. 409 when it is over."""
    row = studio.jobs.cancel(job_id)
    if row is None:
        raise _unknown()
    studio.told(row)
    return _given(studio, row)


@router.post(
    "/jobs/{job_id}/retry",
    status_code=HTTPStatus.CREATED,
    responses={
        **may_say(HTTPStatus.NOT_FOUND, *_SUBMITS),
        200: {"model": JobGiven, "description": "sent before with this key"},
    },
)
def retry(job_id: JobId, studio: TheStudio, response: Response, key: Key = None) -> JobGiven:
    """Queue a job again, as a new one that names it. 409 when it is not over."""
    payload = _digest({"retry_of": job_id})
    if key is not None and (row := studio.table.known(key, payload)):
        response.status_code = HTTPStatus.OK
        return _given(studio, row)
    old = found(studio, job_id)
    if old["state"] not in OVER:
        raise Problem(HTTPStatus.CONFLICT, f"the job is {old['state']}; it can be started again when it is over")
    studio.check_room()
    request = old["request"]
    # Planned anew: the model may have been changed since, and its pictures must still be here.
    plan = studio.engine.plan(request, studio.pictures.scene_of(request["scene"]))
    return _queue(studio, response, request=request, plan=plan, payload=payload, key=key, retry_of=job_id)


@router.delete(
    "/jobs/{job_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=may_say(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete(job_id: JobId, studio: TheStudio) -> None:
    """Forget a job that is over, with its files. 409 when it is not over."""
    if not studio.jobs.remove(job_id):
        raise _unknown()
    studio.hub.tell("deleted", job_id, {"id": job_id})


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={**may_say(HTTPStatus.TOO_MANY_REQUESTS), 200: {"content": {"text/event-stream": {}}}},
)
async def events(studio: TheStudio) -> StreamingResponse:
    """Stream what happens to the jobs, as server-sent events: snapshot first, then job, progress and deleted.

    A page that comes back after a gap gets a snapshot again, whatever the last event was that it saw.
    """
    return EventStream(studio.hub.listen(studio.snapshot))


def found(studio: Studio, job_id: str) -> Row:
    """A job's row; Problem 404 when there is none."""
    row = studio.table.get(job_id)
    if row is None:
        raise _unknown()
    return row


def _queue(
    studio: Studio,
    response: Response,
    *,
    request: Json,
    plan: Json,
    payload: str,
    key: str | None,
    retry_of: str | None = None,
) -> JobGiven:
    limits = studio.limits
    row, new = studio.table.submit(
        request=request,
        plan=plan,
        payload=payload,
        key=key,
        retry_of=retry_of,
        max_queued=limits.queued_jobs,
        max_history=limits.history,
    )
    if new:
        studio.told(row)
        studio.jobs.wake()
    else:
        response.status_code = HTTPStatus.OK
    return _given(studio, row)


def _given(studio: Studio, row: Row) -> JobGiven:
    return JobGiven.model_validate(job_json(row, studio.jobs.live(row["id"])))


def _digest(payload: Json) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def _unknown() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "job: there is none with this id; it may have been deleted", "job_id")
