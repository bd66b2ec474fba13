"""Errors as RFC 9457 problem details: one table from error to HTTP status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.errors import (
    AppendConflict,
    BadInput,
    CallBusy,
    CalltrailError,
    Conflict,
    DatabaseUnavailable,
    EventIdReused,
    KeyBusy,
    KeyReused,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    OutsideTree,
    SchemaMismatch,
    TransferSettled,
    TransferUnderWay,
    UnderLegalHold,
)
from service.gws import answers

STATUS: dict[type[CalltrailError], tuple[int, int]] = {
    BadInput: (400, answers.INVALID),
    NotAuthenticated: (403, answers.NOT_AUTHENTICATED),
    NotFound: (404, answers.RESOURCE_NOT_FOUND),
    Conflict: (409, answers.INVALID),
    CallBusy: (409, answers.INVALID),
    KeyBusy: (409, answers.INCOMPLETE),
    KeyReused: (422, answers.INVALID),
    TransferSettled: (409, answers.INVALID),
    TransferUnderWay: (409, answers.INVALID),
    UnderLegalHold: (409, answers.FORBIDDEN),
    OutsideTree: (404, answers.RESOURCE_NOT_FOUND),
    AppendConflict: (409, answers.INVALID),
    EventIdReused: (409, answers.INVALID),
    SchemaMismatch: (503, answers.INTERNAL_ERROR),
    OutcomeUnknown: (503, answers.INCOMPLETE),
    DatabaseUnavailable: (503, answers.INTERNAL_ERROR),
    CalltrailError: (500, answers.INTERNAL_ERROR),
}
"""HTTP status and GWS statusCode by error class; a subclass without an entry has its parent's."""

logger = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
RETRY_AFTER_S = "1"
PREFIX = "urn:calltrail:problem:"


def problem(error: CalltrailError) -> JSONResponse:
    """The answer for `error`. `statusCode` and `statusMessage` are there for clients that know only GWS."""
    status, status_code = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    document: dict[str, Any] = {
        "type": PREFIX + type(error).__name__,
        "title": (type(error).__doc__ or "").partition("\n")[0].rstrip("."),
        "status": status,
        "detail": str(error),
        "statusCode": status_code,
        "statusMessage": str(error),
    }
    if isinstance(error, BadInput):
        document["field"] = error.field
    if isinstance(error, UnderLegalHold):
        document |= {"case": error.case, "hold_id": str(error.hold_id)}
    headers = {"Retry-After": RETRY_AFTER_S} if status == 503 or isinstance(error, KeyBusy) else None
    return JSONResponse(document, status, headers, media_type=PROBLEM)


def as_bad_input(error: RequestValidationError) -> BadInput:
    """The first parameter that is not as it was declared."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return BadInput(field, str(first["msg"]), "See /openapi.json")


def install(app: FastAPI) -> None:
    """Let every error of `app` come out as problem details."""

    @app.exception_handler(CalltrailError)
    async def ours(_: Request, error: CalltrailError) -> JSONResponse:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(as_bad_input(error))

    @app.exception_handler(HTTPException)
    async def framework(_: Request, error: HTTPException) -> JSONResponse:
        return plain_problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed", exc_info=error)
        return plain_problem(500, "Internal Server Error")


def plain_problem(status: int, title: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem of which nothing more is to be said than its status does (RFC 9457 §4.2.1)."""
    document = {"type": "about:blank", "title": title, "status": status}
    return JSONResponse(document, status, headers, media_type=PROBLEM)
