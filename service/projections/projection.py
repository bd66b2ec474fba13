"""What a projection is: a table, and a pure fold from events to its rows.

A fold sees one event and the current row of a key that the event concerns, and says what that row is
afterwards. It does no I/O and knows neither generations nor positions' intervals; the engine does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa

from service.events import Event, decode
from service.gws.answers import parse_object
from service.projections.notice import Notice, read_notice

metadata = sa.MetaData()

Key = tuple[Any, ...]
Row = Mapping[str, Any]

_UNREAD: Any = object()


class Recorded(msgspec.Struct, gc=False):
    """An event as a fold sees it. Its body is parsed once, for all projections, when first asked for."""

    position: int
    recorded_at: datetime
    event: Event
    body: bytes = b""
    stream: str = ""
    kind: str = ""
    _document: dict[str, Any] | None = _UNREAD
    _notice: Notice | None = _UNREAD

    def __post_init__(self) -> None:
        self.kind = type(self.event).__name__

    @property
    def clean(self) -> bool:
        """Whether no string in the body can hold what Postgres does not take (only escapes could)."""
        return b"\\" not in self.body or b"\\u" not in self.body

    @classmethod
    def of(
        cls, position: int, recorded_at: datetime, stream: str, kind: str, payload: bytes
    ) -> Recorded | None:
        """Read an event of the log; None for a kind that this program does not know.

        Raises:
            msgspec.DecodeError: the payload is not one of its kind.

        """
        decoded = decode(kind, payload)
        if decoded is None:
            return None
        event, body = decoded
        return cls(position, recorded_at, event, body, stream)

    @property
    def document(self) -> dict[str, Any] | None:
        """The body as a JSON object; None if it is none."""
        if self._document is _UNREAD:
            self._document = parse_object(self.body)
        return self._document

    @property
    def notice(self) -> Notice | None:
        """The call that the body, a notification, tells of; None if it tells of none."""
        if self._notice is _UNREAD:
            self._notice = read_notice(self.body)
        return self._notice

    def stored(self, value: Any) -> Any:
        """A value of the body as Postgres takes it."""
        return value if self.clean else storable(value)


class Projection(Protocol):
    """One view of the log.

    `table` is partitioned by generation and its primary key is (generation, *key) and, if `versioned`,
    from_position. A versioned table has the columns from_position, to_position and node, which are the
    engine's: it keeps one row per key and interval of positions, and closes the old one when a fold changes
    it.

    `early_indexes` are those that the engine needs while it builds a generation ("(a, b) WHERE …"), beside
    the primary key of a table that is not versioned; all others are made when it is built. Of a versioned
    table the first finds the current row of a key.

    `by_call`: no row rests on the streams of several calls. Then several processes can rebuild it: an event
    of a stream `call-…` or `transfer-…` is folded by the one that has this call; any other event is seen by
    all, and each folds the keys whose first part falls to it.
    """

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> sa.Table: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def versioned(self) -> bool: ...
    @property
    def kinds(self) -> frozenset[str]: ...
    @property
    def by_call(self) -> bool: ...
    @property
    def sweeping(self) -> frozenset[str]: ...
    @property
    def early_indexes(self) -> tuple[str, ...]: ...

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        """The keys of the rows that the event may change, each once."""

    def sweep(self, recorded: Recorded) -> Sweep | None:
        """Which current rows, beside `keys`, an event of a kind in `sweeping` may change."""

    def fold(self, key: Key, row: Any, recorded: Recorded) -> Any:
        """The row of `key` (a mapping, None: there is none) after the event; `row` itself if nothing changes.

        A row has all columns of the table but the engine's own. See also `service.projections.recalling`.
        """


class Sweep(msgspec.Struct, frozen=True):
    """Current rows for which `where` holds: SQL over the table's columns, `$1` being `value`."""

    where: str
    value: str


def storable(value: Any) -> Any:
    """`value` as Postgres takes it in text and jsonb: without NUL and without lone surrogates.

    The bytes themselves stay in the log; a view shows U+FFFD in their place.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {storable(str(name)): storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124 NaN
        return str(value)
    return value
