"""The studio's routes, a file for each kind of thing; and what they share."""

from http import HTTPStatus
from typing import Annotated, Final, Protocol, runtime_checkable

from fastapi import Depends, Path, Request

from sgi2v.records import Json
from sgi2v.studio.shapes import Problems
from sgi2v.studio.studio import Studio

JOB_ID: Final = "^[0-9a-f]{32}$"
PICTURE_ID: Final = "^[0-9a-f]{64}$"


def studio_of(request: Request) -> Studio:
    """The studio whose application this request has come to."""
    studio = request.app.state.studio
    assert isinstance(studio, Studio)
    return studio


@runtime_checkable
class Named(Protocol):
    """A route, or what FastAPI makes of one that is included elsewhere."""

    @property
    def name(self) -> str:
        """Name of the function that answers."""
        ...


def name_of(route: Named) -> str:
    """An operation's id in the schema: the function's name."""
    return route.name


def may_say(*statuses: HTTPStatus) -> dict[int | str, Json]:
    """The refusals of an operation beside those that any may give, for the schema."""
    always = (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
    return {int(status): {"model": Problems, "description": status.phrase} for status in (*always, *statuses)}


def raw(*kinds: str) -> Json:
    """The schema of a body that is a file's bytes."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


TheStudio = Annotated[Studio, Depends(studio_of)]
JobId = Annotated[str, Path(pattern=JOB_ID, description="32 hexadecimal digits")]
PictureId = Annotated[str, Path(pattern=PICTURE_ID, description="SHA-256, 64 hexadecimal digits")]
