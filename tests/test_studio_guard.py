"""Who is let into the studio, how much it takes, and what a browser may do with its answers."""

import socket
import struct
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sgi2v.studio.app import create_app
from sgi2v.studio.guard import COOKIE, HEADERS, cookie_value
from sgi2v.studio.settings import Limits, StudioSettings
from studio_process import StudioProcess
from studio_quick import QuickEngine, quick_settings
from studio_scene import asked, file_of, picture, scene

TOKEN = "a token of sixteen or more"


def opened(data: Path, **changed: Any) -> TestClient:
    app = create_app(quick_settings(data, **changed), engine=QuickEngine, warm_up=False)
    return TestClient(app, base_url="http://127.0.0.1:7860")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with opened(tmp_path) as client:
        yield client


@pytest.fixture
def far(tmp_path: Path) -> Iterator[TestClient]:
    """A studio that other machines can reach."""
    with opened(tmp_path, host="0.0.0.0", token=TOKEN, allowed_hosts=("studio.example.org",)) as client:
        yield client


def message(response: Any) -> str:
    """The one line of a refusal; every refusal has this form and these headers."""
    error = response.json()["error"]
    assert set(error) == {"field", "message"} and "\n" not in error["message"]
    assert all(response.headers[name] == value for name, value in HEADERS.items())
    return str(error["message"])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.1"])
def test_this_machines_own_names_are_let_in(client: TestClient, host: str) -> None:
    assert client.get("/api/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.7:7860", "", "a@localhost",
     "localhost/x", "localhost:port", "[::1", "studio.example.org"],
)  # fmt: skip
def test_a_name_that_was_pointed_here_is_not_let_in(client: TestClient, host: str) -> None:
    response = client.get("/api/jobs", headers={"Host": host})
    assert response.status_code == 403 and message(response).startswith("Host: ")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1234", "https://127.0.0.1"])
def test_another_sites_page_cannot_post_here(client: TestClient, origin: str) -> None:
    response = client.post("/api/images", content=file_of(picture()), headers={"Origin": origin})
    assert response.status_code == 403 and "Origin" in message(response)


def test_the_studios_own_page_can(client: TestClient) -> None:
    response = client.post("/api/images", content=file_of(picture()), headers={"Origin": "http://127.0.0.1:7860"})
    assert response.status_code == 201


def test_another_sites_page_cannot_read_here_but_a_link_to_the_studio_opens(client: TestClient) -> None:
    there = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client.get("/api/jobs", headers=there).status_code == 403
    assert client.get("/health", headers={**there, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.post("/api/jobs", headers={**there, "Sec-Fetch-Mode": "navigate"}).status_code == 403


def test_without_the_token_only_the_login_opens(far: TestClient) -> None:
    for path in ("/", "/api/jobs", "/api/events", "/docs", "/openapi.json", "/static/style.css", "/nothing"):
        response = far.get(path)
        assert response.status_code == 401 and "token" in message(response), path
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "ünicode"):
        assert far.get("/api/jobs", headers={b"Authorization": f"Bearer {wrong}".encode()}).status_code == 401
        assert far.get("/api/jobs", headers={b"Cookie": f"{COOKIE}={wrong}".encode()}).status_code == 401
    assert far.get("/api/jobs", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 401  # the token is no cookie
    assert far.get("/login").status_code == 200 and far.get("/health").status_code == 200
    assert far.get("/api/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("way", ["form", "address"])
def test_the_token_becomes_a_cookie_that_other_sites_cannot_use(far: TestClient, way: str) -> None:
    if way == "form":
        assert far.post("/login", data={"token": "wrong"}).status_code == 401
        response = far.post("/login", data={"token": TOKEN})
    else:
        response = far.get("/login", params={"token": TOKEN})
    assert response.status_code == 200
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert far.cookies[COOKIE] == cookie_value(TOKEN)
    assert far.get("/api/jobs").status_code == 200
    beside = {"Cookie": f'theirs={{"a": [1]}}; {COOKIE}={cookie_value(TOKEN)}; x'}
    far.cookies.clear()
    assert far.get("/api/jobs", headers=beside).status_code == 200  # all ports of a machine share its cookies


def test_a_person_who_opens_the_page_is_led_to_the_login(far: TestClient) -> None:
    response = far.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert response.status_code == 401 and "url=/login" in response.text
    assert all(response.headers[name] == value for name, value in HEADERS.items())


def test_other_machines_come_by_address_or_by_a_name_that_was_allowed(far: TestClient) -> None:
    known = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("192.168.1.7:7860", "studio.example.org", "localhost"):
        assert far.get("/api/jobs", headers={**known, "Host": host}).status_code == 200
    assert far.get("/api/jobs", headers={**known, "Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"host": "0.0.0.0"}, "host"),
        ({"host": "studio.example.org"}, "host"),
        ({"host": "0.0.0.0", "token": "short"}, "token"),
        ({"token": "a token with a\nnew line in it"}, "token"),
        ({"port": 70000}, "port"),
        ({"allowed_hosts": ("a b",)}, "allowed_hosts"),
        ({"backbones": ()}, "backbone"),
        ({"backbones": ("runs/a/model/", "bundled", "b/model")}, "backbone: runs/a/model/ and b/model"),
    ],
)
def test_a_studio_that_would_be_open_to_all_is_not_started(tmp_path: Path, changed: Any, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}\\b"):
        StudioSettings(data=tmp_path, **changed)


def test_every_answer_says_what_a_browser_may_do_with_it(client: TestClient) -> None:
    for path in (
        "/",
        "/docs",
        "/login",
        "/health",
        "/api/jobs",
        "/nothing",
        "/static/pages.css",
        "/static/none.css",
    ):
        response = client.get(path)
        for name, value in HEADERS.items():
            assert response.headers[name] == value, (path, name)
    assert "unsafe" not in HEADERS["Content-Security-Policy"] and "http" not in HEADERS["Content-Security-Policy"]


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" or any(name.startswith("on") or name == "style" for name, _ in attrs)
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "action")]


@pytest.mark.parametrize("path", ["/docs", "/login"])
def test_plain_pages_need_no_script_and_no_other_host(client: TestClient, path: str) -> None:
    page = _Addresses()
    page.feed(client.get(path).text)
    assert page.scripts == 0 and page.found
    for address in page.found:
        assert address.startswith(("/", "#")) and not address.startswith("//")
        if address.startswith("/") and address != "/login":
            assert client.get(address).status_code == 200


def test_the_reference_names_every_operation(client: TestClient) -> None:
    text = client.get("/docs").text
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        assert f"<code>{path}</code>" in text
        assert operations


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header declares a size that its few bytes do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (huge_png(10_000, 10_000), "64 megapixels"),
        (huge_png(2**31 - 1, 2**31 - 1), "megapixels"),
        (file_of(picture(200, 200), "JPEG")[:-4000], "image: "),
        (file_of(picture())[:-30], "image: "),
        (b"<svg onload='x'/>", "image: "),
        (b"", "empty"),
    ],
    ids=["100 megapixels", "more than a number holds", "half a JPEG", "a PNG cut short", "SVG", "nothing"],
)
def test_what_is_no_whole_picture_of_bearable_size_is_refused(client: TestClient, data: bytes, said: str) -> None:
    response = client.post("/api/images", content=data)
    assert response.status_code == 422 and said in message(response)


def test_nothing_of_a_refused_picture_is_kept(client: TestClient, tmp_path: Path) -> None:
    client.post("/api/images", content=file_of(picture())[:-30])
    assert not list((tmp_path / "images").iterdir())


def test_a_body_may_be_as_long_as_its_route_allows(tmp_path: Path) -> None:
    limits = Limits(image_bytes=2000, json_bytes=1000)
    with opened(tmp_path, limits=limits) as client:
        assert client.post("/api/images", content=bytes(2000)).status_code == 422
        response = client.post("/api/images", content=bytes(2001))
        assert response.status_code == 413 and message(response).startswith("body: ")

        def unannounced() -> Iterator[bytes]:
            yield bytes(1000)
            yield bytes(1001)

        assert client.post("/api/images", content=unannounced()).status_code == 413
        assert client.post("/api/plan", json={"scene": {"image": "x" * 1000}}).status_code == 413
        assert client.post("/login", content=b"x" * 5000).status_code == 413


@pytest.mark.parametrize("body", [b'{"scene":' * 5000, b'{"scene": {"a": ' + b"9" * 5000 + b"}}", b'{"scene": "\xff"}'])
def test_json_that_python_gives_up_on_is_refused_in_words(client: TestClient, body: bytes) -> None:
    response = client.post("/api/plan", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and message(response).startswith("body: ")


def test_a_full_queue_history_and_disk_say_so(tmp_path: Path) -> None:
    with opened(tmp_path, limits=Limits(queued_jobs=2, history=4)) as client:
        jobs = [client.post("/api/jobs", json=asked(60_000)).json()["id"]]
        while client.get(f"/api/jobs/{jobs[0]}").json()["state"] != "running":
            pass
        jobs += [client.post("/api/jobs", json=asked(1)).json()["id"] for _ in range(2)]
        response = client.post("/api/jobs", json=asked(1))
        assert response.status_code == 429 and "2 jobs are waiting" in message(response)
        assert [job["position"] for job in client.get("/api/jobs").json()["jobs"]] == [1, 0, None]
        client.post(f"/api/jobs/{jobs[1]}/cancel").raise_for_status()
        assert client.post("/api/jobs", json=asked(1)).status_code == 201
        client.post(f"/api/jobs/{jobs[2]}/cancel").raise_for_status()
        response = client.post("/api/jobs", json=asked(1))
        assert response.status_code == 507 and "4 jobs are kept" in message(response)
        assert client.delete(f"/api/jobs/{jobs[1]}").status_code == 204
        assert client.post("/api/jobs", json=asked(1)).status_code == 201
        assert client.delete(f"/api/jobs/{jobs[0]}").status_code == 409
    with opened(tmp_path / "full", limits=Limits(free_bytes=2**62)) as client:
        for response in (
            client.post("/api/jobs", json=asked(1)),
            client.post("/api/images", content=file_of(picture())),
        ):
            assert response.status_code == 507 and "MiB are free" in message(response)
        # Whatever way a picture comes, it needs room.
        assert client.post("/api/plan", json={"scene": scene()}).status_code == 507


@pytest.mark.parametrize(
    "picture_of_it",
    ["/etc/passwd", ".", "../jobs.sqlite", "http://127.0.0.1/x.png", "file:///etc/passwd", "photo.jpg", "", "upload:",
     "upload:../jobs.sqlite", "upload:" + "A" * 64, "upload:" + "0" * 64, "upload:" + "0" * 64 + "/..", "data:,x",
     "data:image/png;base64,%%%"],
)  # fmt: skip
def test_no_path_or_address_in_a_scene_is_followed(client: TestClient, picture_of_it: str) -> None:
    for field in ("image", "motions[0].mask", "reference.frames", "reference.frames[0]", "reference.masks"):
        asking = {**scene(), "version": 2}
        frames = {"reference.frames": picture_of_it, "reference.frames[0]": [picture_of_it]}
        if field == "image":
            asking["image"] = picture_of_it
        elif field == "motions[0].mask":
            asking["motions"][0]["mask"] = picture_of_it
        else:
            asking["reference"] = {"frames": frames.get(field, [asking["image"]])}
            asking["reference"] |= {"masks": picture_of_it} if field == "reference.masks" else {}
        for path, body in (
            ("/api/plan", {"scene": asking}),
            ("/api/import/scene", asking),
            ("/api/export/scene", asking),
        ):
            response = client.post(path, json=body)
            assert response.status_code == 422 and message(response).startswith(f"{field}: ")
            assert response.json()["error"]["field"] == field


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/api/images/..%2fjobs.sqlite",
     "/api/jobs/..%2f..%2fjobs.sqlite/run.json", "/api/jobs/" + "0" * 32 + "/frames/..%2f0.png"],
)  # fmt: skip
def test_no_path_in_an_address_leads_out(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code in (404, 422) and b"sqlite" not in response.content[:20]


def test_an_upload_that_breaks_off_is_not_kept_and_harms_nothing(tmp_path: Path) -> None:
    whole = file_of(picture(200, 200))
    with StudioProcess(tmp_path) as studio:
        host, port = studio.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /api/images HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(whole)}\r\n\r\n"
            connection.sendall(head.encode() + whole[:1000])
            connection.shutdown(socket.SHUT_WR)
            assert b" 201 " not in connection.recv(1000)
        assert studio.get("/health") == {"ok": True}
        assert not list((tmp_path / "images").iterdir())
        assert studio.http.post("/api/images", content=whole).status_code == 201
