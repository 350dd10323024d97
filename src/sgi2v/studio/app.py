"""The studio as a web application: every part of it belongs to one `create_app`, and nothing is shared."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from sgi2v.records import Json
from sgi2v.studio import problems
from sgi2v.studio.guard import Guard
from sgi2v.studio.questions import Engine
from sgi2v.studio.routes import files, jobs, pages, scenes
from sgi2v.studio.settings import StudioSettings
from sgi2v.studio.studio import Studio

STATIC = Path(__file__).parent / "static"


def create_app(
    settings: StudioSettings,
    *,
    engine: Callable[[StudioSettings], Engine] | None = None,
    warm_up: bool = True,
) -> FastAPI:
    """The application of one studio; its queue runs while the application does.

    ``engine`` makes what knows the models, by default of this library; with ``warm_up`` it is made at the start, in
    the background. Raises ValueError where the data folder cannot be used, or another studio works in it.
    """
    studio = Studio(settings, engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.start()
        if warm_up:
            threading.Thread(target=studio.warm_up, name="engine", daemon=True).start()
        try:
            yield
        finally:
            studio.stop()

    app = FastAPI(
        title="sgi2v studio",
        version=version("sgi2v"),
        description="Scenes in, videos out. Every answer that says no is {error: {field, message}}.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.studio = studio
    problems.install(app)
    for room in (pages, scenes, jobs, files):
        app.include_router(room.router)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")
    app.add_middleware(Guard, settings=settings)
    _describe(app, settings)
    return app


def _describe(app: FastAPI, settings: StudioSettings) -> None:
    """Say in the schema that a token is needed, where one is."""
    plain = app.openapi

    def openapi() -> Json:
        schema = plain()
        if settings.token is not None:
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
