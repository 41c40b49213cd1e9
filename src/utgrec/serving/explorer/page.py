"""The explorer's page and its files, and the run's report, each under a strict content policy.

The files are read once and served by their exact names, so no request ever becomes a path. Nothing
in them is generated: what callers see comes from the routes, with the caller's key.

An `iframe` cannot send a key, so the report has an address with a ticket that lasts a minute. The
report itself runs no scripts, is given no origin of its own, and may load nothing.
"""

import hashlib
import hmac
import mimetypes
import time
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

from utgrec.errors import FieldError
from utgrec.serving.access import allow
from utgrec.serving.explorer import schemas
from utgrec.serving.generations import GenerationStore
from utgrec.serving.keys import Key
from utgrec.serving.problems import Refused

WEB = Path(__file__).parents[1] / "web"
PAGE = "index.html"
TICKET_S = 60
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",  # asks each time whether it changed, by its ETag
}


class Asset:
    """One file of the page."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.etag = f'"{hashlib.sha256(self.content).hexdigest()[:20]}"'
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.kind = kinds.get(path.suffix, guessed)

    def answer(self, request: Request) -> Response:
        """The file, or that the caller has it already."""
        headers = {**HEADERS, "etag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.kind, headers=headers)


def page_routes(store: GenerationStore, keys: tuple[Key, ...] | None) -> APIRouter:
    """The page, its files and the report."""
    routes = APIRouter()
    assets = {
        path.relative_to(WEB).as_posix(): Asset(path)
        for path in sorted(WEB.rglob("*"))
        if path.is_file()
    }
    tickets = Tickets(keys)

    @routes.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return assets[PAGE].answer(request)

    @routes.get("/explorer/{name:path}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in assets:
            raise HTTPException(404, "the explorer has no such file")
        return assets[name].answer(request)

    @routes.get("/v1/report", response_model=schemas.ReportOut, dependencies=[allow(keys, "read")])
    async def report_address() -> Response:
        """Where the report of the run is."""
        there = store.run.report.is_file()
        return JSONResponse({"url": f"/report{tickets.make()}" if there else None})

    @routes.get("/report", include_in_schema=False)
    async def report(ticket: str = "") -> Response:
        if not tickets.is_good(ticket):
            raise Refused(
                401,
                "open the report from the explorer; its address has expired",
                FieldError("query.ticket", "a ticket that is not shown", "is at most a minute old"),
            )
        path = store.run.report
        if not path.is_file():
            raise HTTPException(404, "no report yet; write it with `utgrec report RUN`")
        headers = {**HEADERS, "content-security-policy": REPORT_POLICY}
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)

    return routes


class Tickets:
    """Short-lived permissions to read the report, known to all processes with the same keys."""

    def __init__(self, keys: tuple[Key, ...] | None) -> None:
        self._secret: bytes | None = None
        if keys is not None:
            known = "\n".join(["report", *(key.sha256 for key in keys)])
            self._secret = hashlib.sha256(known.encode()).digest()

    def make(self, now: float | None = None) -> str:
        """The query string to ask with; empty where everybody may read."""
        if self._secret is None:
            return ""
        until = str(int((time.time() if now is None else now) + TICKET_S))
        return f"?ticket={until}.{self._sign(until)}"

    def is_good(self, ticket: str, now: float | None = None) -> bool:
        """Whether a ticket was made here, and is still valid."""
        if self._secret is None:
            return True
        until, _, signature = ticket.partition(".")
        if not (until.isascii() and until.isdigit() and signature.isascii()):
            return False
        fresh = int(until[:15]) >= (time.time() if now is None else now)
        return fresh and hmac.compare_digest(self._sign(until), signature)

    def _sign(self, until: str) -> str:
        assert self._secret is not None
        return hmac.new(self._secret, until.encode(), hashlib.sha256).hexdigest()
