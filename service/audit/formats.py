"""Transfers as files: CSV, JSON Lines, Parquet. Each writer takes one row at a time and keeps none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from service.audit.record import COLUMNS, plain
from service.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
ROWS_IN_A_GROUP = 5_000


class Writer(Protocol):
    """A file that takes the flat records of transfers."""

    def write(self, record: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line, UTF-8."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(msgspec.json.encode({name: plain(value) for name, value in record.items()}) + b"\n")

    def close(self) -> None:
        self._file.close()


class Csv:
    """RFC 4180, UTF-8 with a byte order mark, so that spreadsheets read it as it is.

    Text that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, CSV Injection).
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8-sig", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(column.name for column in COLUMNS)

    def write(self, record: dict[str, Any]) -> None:
        self._writer.writerow(harmless(plain(value)) for value in record.values())

    def close(self) -> None:
        self._file.close()


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


class Parquet:
    """Apache Parquet, zstd, times as UTC timestamps of microseconds; each column says what it means.

    Raises:
        BadInput: the library for it is not installed.

    """

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise BadInput(
                "format", "parquet needs pyarrow, which is not installed", "pip install 'calltrail[export]'"
            ) from None
        self._arrow = pa
        self._schema = arrow_schema()
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, record: dict[str, Any]) -> None:
        self._rows.append(record)
        if len(self._rows) >= ROWS_IN_A_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


def arrow_schema() -> pa.Schema:
    """The columns of an export as Parquet has them."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(
        [pa.field(name, types[kind], metadata={"comment": meaning}) for name, kind, meaning in COLUMNS]
    )
