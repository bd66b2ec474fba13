"""Answers that are tables: JSON, CSV or Parquet, as the request wants."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from fastapi import Query, Request
from fastapi.responses import Response

from service.audit.formats import harmless
from service.errors import BadInput

JSON, CSV, PARQUET = "application/json", "text/csv; charset=utf-8", "application/vnd.apache.parquet"
Form = Annotated[
    Literal["json", "csv", "parquet"] | None, Query(alias="format", description="Instead of Accept")
]
Row = Mapping[str, Any]
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/csv": {"schema": {"type": "string"}},
            PARQUET: {"schema": {"type": "string", "format": "binary"}},
        }
    },
}


def answer(
    request: Request,
    form: str | None,
    document: Mapping[str, Any],
    rows: Sequence[Row],
    headers: Mapping[str, str] | None = None,
) -> Response:
    """`document` as JSON, or only its `rows` as a table.

    Raises:
        BadInput: Parquet is wanted and the library for it is not installed.

    """
    chosen = form or negotiated(request.headers.get("accept", ""))
    if chosen == "csv":
        body, media_type = to_csv(rows), CSV
    elif chosen == "parquet":
        body, media_type = to_parquet(rows), PARQUET
    else:
        body, media_type = msgspec.json.encode(document), JSON
    return Response(body, media_type=media_type, headers={"Vary": "Accept", **(headers or {})})


def negotiated(accept: str) -> str:
    """The form that an Accept header asks for; JSON where it does not care."""
    for one in accept.split(","):
        match one.partition(";")[0].strip().lower():
            case "text/csv":
                return "csv"
            case "application/vnd.apache.parquet":
                return "parquet"
            case "application/json" | "*/*" | "application/*":
                return "json"
    return "json"


def to_csv(rows: Sequence[Row]) -> bytes:
    """RFC 4180, UTF-8; text that a spreadsheet would take for a formula is made harmless."""
    text = io.StringIO()
    writer = csv.writer(text)
    if rows:
        writer.writerow(rows[0])
        writer.writerows([harmless(flat(value)) for value in row.values()] for row in rows)
    return text.getvalue().encode()


def to_parquet(rows: Sequence[Row]) -> bytes:
    """Apache Parquet; lists and objects as JSON text."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise BadInput(
            "format", "parquet needs pyarrow, which is not installed", "pip install 'calltrail[export]'"
        ) from None
    buffer = io.BytesIO()
    plain = [{name: flat(value) for name, value in row.items()} for row in rows]
    parquet.write_table(pa.Table.from_pylist(plain), buffer, compression="zstd")
    return buffer.getvalue()


def flat(value: Any) -> Any:
    """A value as one cell holds it."""
    if isinstance(value, UUID):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool | date | datetime):
        return value
    return msgspec.json.encode(value).decode()
