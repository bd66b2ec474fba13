"""What was known at a position of the log, folded from the log alone, whatever the views have become since.

What was redacted since stays redacted: nothing holds it any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The row of a transfer as it was known at position `as_of`, of the form that its trail has now.

    Raises:
        NotFound: nothing was known of it yet.

    """
    said, commanded = [
        [event for event in await log.read_stream(stream) if event.position <= as_of]
        for stream in (call_stream(call_id), transfer_stream(call_id))
    ]
    facts, key = TransferFacts(), (storable(call_id),)
    known = fold(facts, sorted(said + commanded, key=lambda event: event.position)).get(key)
    derived = {} if known is None else {one["transfer_id"]: one for one in facts.parts(facts.row(key, known))}
    if known is None or transfer_id not in derived:
        raise NotFound(f"transfer {transfer_id} was not known yet at position {as_of}")
    fact = derived[transfer_id]
    audit = fold(TransferAudit(), commanded).get((transfer_id,))
    if audit is None:
        observed = await queries.as_audited(facts.row(key, known))
        audit = next(one for one in observed if one["transfer_id"] == transfer_id)
    else:
        audit = {**audit, "operation": None, "recalled": False}
    return merged({**fact, "is_blind": fact["operation"] == "single-step"}, audit)


def merged(fact: Mapping[str, Any], audit: Mapping[str, Any]) -> dict[str, Any]:
    """What analytics and the audit have of one transfer, in one row. Lists go by the facts."""
    return {**fact, **audit, "requested_at": fact["requested_at"], "reason_group": fact["reason"]}


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
