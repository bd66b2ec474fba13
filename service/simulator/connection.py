"""Writing to a connection: whole answers, halves, or nothing at all."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from service.simulator.messages import encode


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer before it is written."""

    status: int
    body: bytes
    content_type: str = "application/json;charset=UTF-8"


def answer_json(status: int, value: Any) -> Answer:
    return Answer(status, encode(value))


async def send(
    request: web.Request, answer: Answer, headers: CIMultiDict[str] | None = None
) -> web.StreamResponse:
    """Write a whole answer, so that what comes next in the caller comes after it."""
    response = web.Response(status=answer.status, body=answer.body, headers=_headers(answer, headers))
    await response.prepare(request)
    await response.write_eof()
    return response


def break_off(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def send_half(request: web.Request, answer: Answer, headers: CIMultiDict[str]) -> web.StreamResponse:
    """Write the head and half of the body, then close the connection."""
    response = web.StreamResponse(status=answer.status, headers=_headers(answer, headers))
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    return break_off(request)


def _headers(answer: Answer, headers: CIMultiDict[str] | None) -> CIMultiDict[str]:
    merged = CIMultiDict({"Content-Type": answer.content_type})
    merged.extend(headers or {})
    return merged
