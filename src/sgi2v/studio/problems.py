"""Errors as answers of the studio: {"error": {"field": ..., "message": ...}}."""

import errno
import sqlite3
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sgi2v.errors import FieldError
from sgi2v.studio.database import damaged, full
from sgi2v.writing import reason

_LIST: Final = "the list of jobs cannot be used"
_RESTART: Final = "start the studio again: it sets a copy aside and begins a new list"
_FULL: Final = "the disk is full; remove jobs that are no longer needed, or free some space, and try again"


def words(error: Exception) -> str:
    """Words of an error for the person: one line, without this machine's paths and without advice for a terminal."""
    cause = error.__cause__ if isinstance(error, FieldError) and error.field == "output" else error
    if isinstance(cause, OSError):
        return _FULL if _no_room(cause) else f"the data folder cannot be used ({reason(cause)})"
    if isinstance(error, sqlite3.Error):
        if full(error):
            return _FULL
        return f"the list of jobs is damaged ({error}); {_RESTART}" if damaged(error) else f"{_LIST} ({error})"
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {error}"


def _no_room(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Problem(HTTPException):
    """An answer that says no: a status, the field at fault and one line for the person."""

    def __init__(self, status: int, message: str, field: str = "") -> None:
        super().__init__(status_code=status, detail=message)
        self.field = field


def answer(status: int, message: str, field: str = "") -> JSONResponse:
    """An error as a response; ``field`` is empty where no single one is at fault."""
    field, message = (text.encode("utf-8", "replace").decode() for text in (field, message))
    return JSONResponse({"error": {"field": field, "message": message}}, status_code=status)


def install(app: FastAPI) -> None:
    """Make every error of the app an answer of this form."""

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Problem):
            response = answer(error.status_code, str(error.detail), error.field)
        elif error.status_code == HTTPStatus.NOT_FOUND:
            response = answer(error.status_code, f"{request.url.path}: there is nothing here; see /docs")
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response = answer(error.status_code, f"{request.method} is not possible here; see /docs")
        elif error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's word for a body that Python's parser gives up on
            message = "body: this is not UTF-8, is nested too deeply, or holds too long a number; send plainer JSON"
            response = answer(error.status_code, message, "body")
        else:
            response = answer(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = _place(first["loc"])
        if first["type"] == "json_invalid":
            return answer(HTTPStatus.BAD_REQUEST, f"body: this is not JSON ({first['ctx']['error']})", "body")
        return answer(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {first['msg']}", field)

    @app.exception_handler(ValueError)
    async def mistake(request: Request, error: ValueError) -> JSONResponse:
        field = error.field if isinstance(error, FieldError) else ""
        cause = error.__cause__
        if isinstance(cause, OSError) and (_no_room(cause) or field == "output"):  # nothing that the person gave
            return await system(request, cause)
        return answer(HTTPStatus.UNPROCESSABLE_ENTITY, words(error), field)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> JSONResponse:
        return answer(HTTPStatus.BAD_REQUEST, "body: it broke off; send it again", "body")

    @app.exception_handler(OSError)
    async def system(request: Request, error: OSError) -> JSONResponse:
        full_disk = _no_room(error)
        return answer(HTTPStatus.INSUFFICIENT_STORAGE if full_disk else HTTPStatus.SERVICE_UNAVAILABLE, words(error))

    @app.exception_handler(sqlite3.Error)
    async def database(request: Request, error: sqlite3.Error) -> JSONResponse:
        return answer(HTTPStatus.INSUFFICIENT_STORAGE if full(error) else HTTPStatus.SERVICE_UNAVAILABLE, words(error))

    @app.exception_handler(MemoryError)
    async def memory(request: Request, error: MemoryError) -> JSONResponse:
        return answer(HTTPStatus.SERVICE_UNAVAILABLE, "the machine has too little memory for this; try it smaller")

    @app.exception_handler(Exception)
    async def mistake_of_ours(request: Request, error: Exception) -> JSONResponse:
        message = f"the studio made a mistake ({type(error).__name__}); what it says of it stands where it was started"
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, message)


def _place(location: Sequence[str | int]) -> str:
    """The field that pydantic found wrong, as in motions[0].box, without the word for the part of the request."""
    parts = list(location)
    if parts and parts[0] in ("body", "query", "path", "header"):
        parts = parts[1:] or parts[:1]
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
