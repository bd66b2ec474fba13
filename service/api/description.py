"""The OpenAPI document: what FastAPI cannot know of the answers of every route."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.problems import PROBLEM

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457)",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "description": "urn:calltrail:problem:… or about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "description": "The HTTP status"},
        "detail": {"type": "string", "description": "What is wrong here, and what to do about it"},
        "field": {"type": "string", "description": "The field or parameter that is wrong"},
        "statusCode": {"type": "integer", "description": "The same in GWS's own codes"},
        "statusMessage": {"type": "string"},
    },
    "examples": [
        {
            "type": "urn:calltrail:problem:BadInput",
            "title": "A value from outside is not acceptable",
            "status": 400,
            "detail": "as_of: is 'yesterday'. Write a position, or a time like 2026-11-24T09:30:00Z",
            "field": "as_of",
            "statusCode": 2,
            "statusMessage": "as_of: is 'yesterday'. Write a position, or a time like 2026-11-24T09:30:00Z",
        }
    ],
}
PROBLEM_CONTENT = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
OBJECT = {"application/json": {"schema": {"type": "object"}}}
WHEN = {"4XX": "The request is wrong, or does not fit the present state", "5XX": "It cannot be done now"}
UNCHANGED = {"description": "Unchanged since the ETag given in If-None-Match"}
EXAMPLES = {
    "call_id": "01RCC3N118B1V0SL8O7GK2LAES00000G",
    "transfer_id": "01a21023-c281-8588-8a3c-d01a00000000",
    "hold_id": "01a21023-c281-8588-8a3c-d01a00000000",
    "agent": "15000",
    "min_position": 42,
}
"""For parameters that many routes have and that do not tell one themselves."""


def complete(app: FastAPI) -> None:
    """Let `app` describe its problems, its 304s, its credentials and an example of each usual parameter."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = described(
                get_openapi(title=app.title, version=app.version, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def described(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for ours in ("HTTPValidationError", "ValidationError"):
        schemas.pop(ours, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    components["securitySchemes"] = {
        "agent": {"type": "http", "scheme": "basic", "description": "A configured agent's, as GWS takes them"}
    }
    for item in document["paths"].values():
        for method, operation in item.items():
            describe(operation, reads=method == "get")
    return document


def describe(operation: dict[str, Any], *, reads: bool) -> None:
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]  # what is wrong is told with 400, as a problem
    for status, answer in responses.items():
        answer.setdefault("content", PROBLEM_CONTENT if status >= "400" else OBJECT)
    for status, description in WHEN.items():
        responses.setdefault(status, {"description": description, "content": PROBLEM_CONTENT})
    if reads:
        responses.setdefault("304", UNCHANGED)
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in EXAMPLES and not parameter["schema"].get("examples"):
            parameter["example"] = EXAMPLES[parameter["name"]]
