"""Routes for pages: the editor, the login, and what the API offers."""

import asyncio
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from sgi2v.studio.guard import COOKIE, cookie_value, same
from sgi2v.studio.problems import Problem
from sgi2v.studio.reference import page, reference
from sgi2v.studio.routes import TheStudio, may_say, name_of
from sgi2v.studio.shapes import Health

router = APIRouter(generate_unique_id_function=name_of)
INDEX = Path(__file__).parents[1] / "static" / "index.html"
_FORM = """<h1>sgi2v studio</h1>
<p>{said}</p>
<form method="post" action="/login"><label>Token <input name="token" type="password" autofocus
autocomplete="current-password" required></label> <button>Open</button></form>"""
_ASKED = "This studio can be reached by other machines and asks for its token, which whoever started it knows."


@router.get("/", include_in_schema=False)
def index() -> FileResponse:
    """The editor."""
    if not INDEX.is_file():
        raise Problem(HTTPStatus.NOT_FOUND, "the page is not part of this installation; install sgi2v again")
    return FileResponse(INDEX, headers={"Cache-Control": "no-cache"})


@router.get(
    "/health",
    response_model_exclude_none=True,
    responses={**may_say(), 503: {"model": Health, "description": "something is wrong, and what"}},
)
def health(studio: TheStudio, response: Response) -> Health:
    """Say that the studio answers, and whether it can work; asks for no token."""
    trouble = studio.trouble()
    if not trouble:
        return Health(ok=True)
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(ok=False, message=trouble)


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """The API's schema."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """The API's schema as a page, without any script."""
    return HTMLResponse(reference(request.app.openapi()))


@router.get("/login", include_in_schema=False)
async def login_page(studio: TheStudio, token: str | None = None) -> HTMLResponse:
    """A form for the token; or with the token in the address (a bookmark, say), straight in."""
    return _form(_ASKED) if token is None else await _enter(studio, token)


@router.post("/login", include_in_schema=False)
async def login(request: Request, studio: TheStudio) -> HTMLResponse:
    """Take the token from the form."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return await _enter(studio, fields.get("token", [""])[0])


async def _enter(studio: TheStudio, token: str) -> HTMLResponse:
    wanted = studio.settings.token
    if wanted is not None and not same(token, wanted):
        await asyncio.sleep(0.5)  # nobody tries many
        return _form("That is not the token.", HTTPStatus.UNAUTHORIZED)
    # A page that goes on by itself rather than a redirect: after a link on another site a browser would follow that
    # without the new SameSite cookie.
    response = HTMLResponse(page("sgi2v studio", '<p><a href="/">Open the studio</a></p>', go_to="/"))
    if wanted is not None:
        response.set_cookie(
            COOKIE, cookie_value(wanted), httponly=True, samesite="strict", path="/", max_age=30 * 24 * 3600
        )
    return response


def _form(said: str, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    return HTMLResponse(page("sgi2v studio", _FORM.format(said=said)), status_code=status)
