"""What was known at a position of the log, folded from the log alone, whatever the views have become since.

What was redacted since stays redacted: nothing holds it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from service.errors import NotFound
from service.events import call_stream, transfer_stream
from service.log import EventLog, StoredEvent
from service.projections import Coverage, Projection, Queries, TransferAudit, TransferFacts
from service.projections.projection import Key, storable
from service.projections.reading import Page


async def spans_known(log: EventLog, as_of: int, agent: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The spans of every agent's record, or of one, by user name, as they were known at position `as_of`.

    Reads what sessions told up to there, and for that the log's kinds from its beginning.
    """
    coverage, rows = Coverage(), dict[Key, Any]()
    after = -1
    while page := await log.read(kinds=sorted(coverage.kinds), after=after, upto=as_of):
        after = page[-1].position
        fold(coverage, page, rows)
    wanted = None if agent is None else storable(agent)
    return {key[0]: row["spans"] for key, row in sorted(rows.items()) if wanted in {None, key[0]}}


async def transfer_known(
    log: EventLog, queries: Queries, call_id: str, transfer_id: UUID, as_of: int
) -> dict[str, Any]:
    """The audit's row of a transfer as it was known at position `as_of`.

    Raises:
        NotFound: nothing was known of it yet.

    """
    said, commanded = [
        [event for event in await log.read_stream(stream) if event.position <= as_of]
        for stream in (call_stream(call_id), transfer_stream(call_id))
    ]
    row = fold(TransferAudit(), commanded).get((transfer_id,))
    if row is not None:
        return {**row, "operation": None, "recalled": False}
    events = sorted(said + commanded, key=lambda event: event.position)
    facts, key = TransferFacts(), (storable(call_id),)
    known = fold(facts, events).get(key)
    if known is not None:
        for found in await queries.as_audited(facts.row(key, known)):
            if found["transfer_id"] == transfer_id:
                return found
    raise NotFound(f"transfer {transfer_id} was not known yet at position {as_of}")


def fold(
    projection: Projection, events: Sequence[StoredEvent], rows: dict[Key, Any] | None = None
) -> dict[Key, Any]:
    """What `projection` makes of `events`, which are in the order of the log; `rows` go on."""
    rows = {} if rows is None else rows
    for recorded in Page.of(events).events:
        if recorded.kind not in projection.kinds:
            continue
        for key in projection.keys(recorded):
            after = projection.fold(key, rows.get(key), recorded)
            if after is not None:
                rows[key] = after
    return rows
