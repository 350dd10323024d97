"""The API under two thousand requests made from its own schema, right and wrong: never an error of the server's."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from studio_process import QUICK, StudioProcess, until
from studio_scene import asked, file_of, picture, scene
from tiny import tiny_svd

NUM_CASES = 2000
NEVER_ENDS = "/api/events"  # is tested in test_studio_api.py
Operation = APIOperation[Any, Any, Any, Any]
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    """Plans jobs as the real studio does, on a tiny model; its worker is quick."""
    data = tmp_path_factory.mktemp("fuzz")
    with StudioProcess(data, QUICK, "--backbone", str(tiny_svd(3, light=True))) as studio:
        yield studio


def seeds(studio: StudioProcess) -> dict[str, list[Any]]:
    """Ids and bodies that are right, so that requests come past the door."""
    image = studio.http.post("/api/images", content=file_of(picture())).json()
    jobs = [studio.http.post("/api/jobs", json=asked(ms)).raise_for_status().json()["id"] for ms in (1, 1, 600_000, 1)]
    until(lambda: studio.get(f"/api/jobs/{jobs[2]}")["state"] == "running")
    right = {**scene(), "image": image["image"]}
    whole = {"scene": right, "camera": {"zoom": 1.2}, "sampling": {"seed": 3, "num_steps": 4}}
    return {
        "job_id": jobs,
        "picture_id": [image["id"]],
        "JobAsked": [asked(1), {"scene": right, "controller": {"name": "none"}, "group": "g"}],
        "MotionsAsked": [{key: whole[key] for key in ("scene", "camera")}],
        "scene": [right, scene()],
    }


def cases(operation: Operation, right: dict[str, list[Any]], mode: GenerationMode) -> st.SearchStrategy[Any]:
    """Requests for an operation: as its schema has them, or with what is right in place of one part."""
    plain = operation.as_strategy(generation_mode=mode)
    mixed = [plain]
    for name in ("job_id", "picture_id"):
        if f"{{{name}}}" in operation.path and "index" not in operation.path:
            mixed += [operation.as_strategy(path_parameters={name: value}) for value in right[name]]
    for shape, path in (
        ("JobAsked", "/jobs"),
        ("JobAsked", "/plan"),
        ("MotionsAsked", "/camera"),
        ("scene", "/scene"),
    ):
        if operation.path.endswith(path) and operation.method == "post":
            mixed += [operation.as_strategy(body=value) for value in right[shape]]
    return st.one_of(mixed)


def takes_something(operation: Operation) -> bool:
    """Whether there is anything in a request that could be wrong."""
    return any(len(part) for part in (operation.path_parameters, operation.query, operation.headers, operation.body))


@pytest.mark.long
def test_no_request_breaks_the_studio(studio: StudioProcess) -> None:
    schema = schemathesis.openapi.from_dict(studio.get("/openapi.json"))
    right = seeds(studio)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    operations = [operation for operation in operations if operation.path != NEVER_ENDS and takes_something(operation)]
    each = -(-NUM_CASES // (2 * len(operations) - 5))  # of some there are fewer different ones
    num_cases, statuses = itertools.count(), set()
    session = requests.Session()
    for operation, mode in itertools.product(operations, GenerationMode):

        @settings(
            max_examples=each, deadline=None, phases=[Phase.generate], database=None,
            suppress_health_check=list(HealthCheck), derandomize=True,
        )  # fmt: skip
        @given(case=cases(operation, right, mode))
        def never_breaks(case: Any) -> None:
            next(num_cases)
            response = case.call(base_url=studio.url, session=session)
            statuses.add(response.status_code)
            allowed = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)
            assert response.status_code < 500 or response.status_code in allowed, (
                case.as_curl_command(),
                response.text,
            )
            case.validate_response(response, checks=CHECKS)

        with suppress(Unsatisfiable):  # nothing can be wrong with the bytes of a file
            never_breaks()
    done = next(num_cases)
    assert done >= NUM_CASES
    assert studio.get("/health") == {"ok": True}
    assert {200, 201, 204, 404, 409, 422} <= statuses, statuses
    assert HTTPStatus.SERVICE_UNAVAILABLE not in statuses
