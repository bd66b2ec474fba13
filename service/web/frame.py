"""What all pages share: templates, headers, static files, and the URL of a page in another state."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service import __version__
from service.api.problems import STATUS, as_bad_input
from service.errors import BadInput, CalltrailError
from service.web import words

HERE = Path(__file__).parent
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Nothing inline and nothing from elsewhere: whatever userData holds, it cannot run in a page."""

FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
SMALL = 1_000  # bytes; below it compressing gains nothing


@dataclass(frozen=True)
class Body:
    """Bytes to serve, known by their hash."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return sha256(self.content).hexdigest()[:20]

    def answer(self, request: Request, status: int = 200, cache: str = ASK_AGAIN) -> Response:
        """The answer to `request`: 304 if the client has it, compressed if it can take that."""
        tag = f'W/"{self.digest}"'
        headers = {**HEADERS, "ETag": tag, "Cache-Control": cache, "Vary": "Accept-Encoding"}
        if status == 200 and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = self.content
        if len(content) > SMALL and "gzip" in request.headers.get("accept-encoding", ""):
            content = gzip.compress(content, 6, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(content, status, headers, media_type=f"{self.media_type}; charset=utf-8")


class Frame:
    """Renders pages."""

    def __init__(self) -> None:
        self.assets = {
            path.name: Body(path.read_bytes(), TYPES[path.suffix]) for path in (HERE / "static").iterdir()
        }
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(words.FILTERS)
        self._templates.globals.update(asset=self.asset_url, version=__version__)

    def asset_url(self, name: str) -> str:
        return f"/static/{name}?v={self.assets[name].digest}"

    def page(
        self, request: Request, template: str, context: Mapping[str, Any], status: int = 200
    ) -> Response:
        """The page that `template` makes of `context`; `link` in it is this page in another state."""
        text = self._templates.get_template(template).render(
            context, link=lambda **changes: link(request, **changes)
        )
        return Body(text.encode(), "text/html").answer(request, status)

    def problem(self, request: Request, error: CalltrailError) -> Response:
        """The page that says what is wrong."""
        status, _ = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
        return self.page(request, "problem.html", {"error": error, "status": status}, status)

    def router(self) -> APIRouter:
        """A router for pages: errors are pages too, and each state has one URL, without empty parameters."""
        frame = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def answer(request: Request) -> Response:
                    if request.method == "GET" and "" in request.query_params.values():
                        return RedirectResponse(link(request), 303)
                    try:
                        return await handle(request)
                    except RequestValidationError as error:
                        return frame.problem(request, as_bad_input(error))
                    except CalltrailError as error:
                        return frame.problem(request, error)

                return answer

        return APIRouter(route_class=PageRoute, include_in_schema=False)


def link(request: Request, **changes: object) -> str:
    """The URL of this page with these parameters instead of those it has; None and empty ones fall away."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in changes]
    return address(request.url.path, [*kept, *changes.items()])


def address(path: str, query: Iterable[tuple[str, object]]) -> str:
    """A URL from its path and parameters; None and empty ones fall away."""
    kept = [(name, value) for name, value in query if value not in {None, ""}]
    return path + (f"?{urlencode(kept)}" if kept else "")


def asked(request: Request, name: str) -> str | None:
    """A parameter of the query string; None if it is missing or empty."""
    return request.query_params.get(name) or None


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        BadInput: it has more than `most` bytes; the rest is not read.

    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BadInput("body", f"has more than {most:,} bytes", "Use calltrail's command line for it")
    return bytes(body)
