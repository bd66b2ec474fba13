"""An ETag for every answer to GET that is sent in one piece, and 304 for whoever has it already."""

from __future__ import annotations

from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASK_AGAIN = "no-cache"


class ETags:
    """ASGI middleware. What has an ETag of its own, or is a stream, passes as it is.

    The tags are weak (RFC 9110 §8.8.1): compression comes after them and changes the bytes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        known = {one.strip() for one in Headers(scope=scope).get("if-none-match", "").split(",")}
        begun: Message | None = None

        async def tagged(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and may_be_tagged(message):
                begun = message
                return
            if begun is not None:
                begin, begun = begun, None
                headers = MutableHeaders(raw=begin["headers"])
                tag = f'W/"{sha256(message["body"]).hexdigest()[:32]}"'
                headers["ETag"] = tag
                headers.setdefault("Cache-Control", ASK_AGAIN)
                if tag in known:
                    begin["status"] = 304
                    message = {**message, "body": b""}
                    del headers["Content-Length"]
                    del headers["Content-Type"]
                await send(begin)
            await send(message)

        await self._app(scope, receive, tagged)


def may_be_tagged(begin: Message) -> bool:
    """Whether the body comes whole: then its length is known before it."""
    headers = Headers(raw=begin["headers"])
    return begin["status"] == 200 and "content-length" in headers and "etag" not in headers
