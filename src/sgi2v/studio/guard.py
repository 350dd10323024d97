"""Access to the studio: checks host, origin, token and size of a request, and sets the security headers of answers."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgi2v.studio.problems import Problem, answer
from sgi2v.studio.reference import page
from sgi2v.studio.settings import Limits, StudioSettings

COOKIE: Final = "sgi2v_studio"
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
            "media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # With no-referrer a browser would call the login form's own page "null" in Origin.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=()",
    }
)
_OPEN: Final = frozenset({"/login", "/health", "/static/pages.css"})  # without a token
_SLOWEST: Final = 8192  # bytes a second
_READS: Final = ("GET", "HEAD", "OPTIONS")


def cookie_value(token: str) -> str:
    """The cookie's content: a proof that its bearer knew the token, not the token."""
    return hmac.new(token.encode(), b"sgi2v studio cookie", hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """True if two secrets are equal; the time it takes does not tell how much of them is."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


class Guard:
    """ASGI middleware in front of everything.

    A page of another site may send a browser here under a name of its own (DNS rebinding), or let it post here:
    so Host must be this machine's, and a request that says where it comes from must come from here.
    """

    def __init__(self, app: ASGIApp, settings: StudioSettings) -> None:
        self.app = app
        self.settings = settings
        self._in_flight = 0  # bytes that requests have said they bring; all in one event loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over a socket
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope["headers"])

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                added = {"Cache-Control": "no-store", **HEADERS}
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in added.items() if k.lower().encode() not in there),
                ]
            await send(message)

        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            self._check_token(scope, headers)
            limit = body_limit(scope["path"], self.settings.limits)
            coming = limit if "transfer-encoding" in headers else int(headers.get("content-length", "0"))
            if coming > limit:
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit), "body")
            if coming and self._in_flight + coming > self.settings.limits.in_flight_bytes:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"body: {self._in_flight >> 20} MiB are being sent already; try again in a moment",
                    "body",
                )
        except Problem as problem:
            await _refusal(problem, scope, headers)(scope, receive, guarded_send)
            return
        self._in_flight += coming
        try:
            await self.app(scope, _counted(receive, limit, self.settings.limits.body_seconds), guarded_send)
        finally:
            self._in_flight -= coming

    def _check_host(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        name = _name(host)
        if name is None or not self._known(name):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"Host: {host[:80]!r} is no name of this studio; open it as 127.0.0.1 or localhost, or start it with "
                "--allowed-hosts NAME",
                "Host",
            )

    def _known(self, name: str) -> bool:
        if name == "localhost" or name in (other.lower() for other in self.settings.allowed_hosts):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return name == self.settings.host.lower()
        # A page of another site cannot make a browser ask for a plain address under its own name.
        return address.is_loopback or not self.settings.only_this_machine

    @staticmethod
    def _check_origin(scope: Scope, headers: Mapping[str, str]) -> None:
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"Origin: {origin[:80]!r} is another site; open the studio's own page",
                "Origin",
            )
        site = headers.get("sec-fetch-site", "same-origin")
        opened = scope["method"] in _READS and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not opened:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "Sec-Fetch-Site: another site asks; open the studio's own page",
                "Sec-Fetch-Site",
            )

    def _check_token(self, scope: Scope, headers: Mapping[str, str]) -> None:
        token = self.settings.token
        if token is None or scope["path"] in _OPEN:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), token):
            return
        if not same(_cookie(headers.get("cookie", "")), cookie_value(token)):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "token: this studio asks for its token; open /login and give it",
                "token",
            )


def body_limit(path: str, limits: Limits) -> int:
    """Largest number of bytes that a request to a path may carry."""
    return {
        "/api/images": limits.image_bytes,
        "/api/import/traj": limits.image_bytes,
        "/api/import/video": limits.video_bytes,
        "/api/verify": limits.video_bytes,
        "/api/import/clip": limits.video_bytes,
        "/api/import/scene": limits.scene_bytes,
        "/login": 4096,
    }.get(path, limits.json_bytes)


def _refusal(problem: Problem, scope: Scope, headers: Mapping[str, str]) -> Response:
    """The answer to who is not let in: JSON, or the way to the login for a person who opens the page."""
    response: Response = answer(problem.status_code, str(problem.detail), problem.field)
    if problem.status_code == HTTPStatus.UNAUTHORIZED:
        if scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            to_login = page("sgi2v studio", '<p><a href="/login">Give the token</a></p>', go_to="/login")
            response = HTMLResponse(to_login, problem.status_code)
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; of a header that is there twice the first counts."""
    found: dict[str, str] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def _name(host: str) -> str | None:
    """The name or address in a Host header, without its port; None where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.hostname


def _cookie(header: str) -> str:
    """The studio's own cookie. Others' stand beside it, for a browser sends them to all ports of a machine: what
    they look like must not matter."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _counted(receive: Receive, limit: int, seconds: float) -> Receive:
    """The request's body, ending in an error as soon as it is longer than it may be, or does not come."""
    taken, whole, begun = 0, False, time.monotonic()

    async def counted() -> Message:
        nonlocal taken, whole
        if whole:  # what comes now is only that the other side has left
            return await receive()
        try:
            left = begun + seconds + taken / _SLOWEST - time.monotonic()
            message = await asyncio.wait_for(receive(), max(0.0, min(seconds, left)))
        except TimeoutError:
            late = "body: it does not come, or too slowly; send it again"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, late, "body") from None
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > limit:
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit), "body")
        return message

    return counted


def _too_large(limit: int) -> str:
    shown = f"{limit / 2**20:.0f} MiB" if limit >= 2**20 else f"{limit} bytes"
    return f"body: larger than the {shown} that are taken here; send less"
