"""Folding one call anew: what a redaction changed in the log must be gone from the views too.

A `PayloadRedacted` that is folded makes this happen, in the same transaction, so a view that has reached the
redaction's position holds nothing of what was redacted, whatever is killed when. A call's rows are those with
its id in the column `call_id`; what rests on no call's payload (coverage) has no such column.
"""

from __future__ import annotations

from service.events import PayloadRedacted, call_stream, transfer_stream
from service.log import EventLog, StoredEvent
from service.projections import sql
from service.projections.folding import Folder
from service.projections.projection import Projection, storable
from service.projections.reading import Page
from service.projections.tables import Connection, ProjectionTable

CALL = "call_id"


async def refold_redacted(connection: Connection, log: EventLog, folder: Folder, page: Page) -> None:
    """Fold anew, up to the end of `page`, every call that a redaction in it names; `folder` was flushed."""
    calls = dict.fromkeys(one.event.call_id for one in page.events if isinstance(one.event, PayloadRedacted))
    if not calls or CALL not in folder.projection.table.columns:
        return
    for call_id in calls:
        await refold(connection, log, folder, call_id, page.upto)


async def refold(connection: Connection, log: EventLog, folder: Folder, call_id: str, upto: int) -> None:
    """Delete the call's rows of a generation and fold its events up to `upto` again."""
    projection, generation = folder.projection, folder.generation
    key = storable(call_id)
    told = ProjectionTable(projection, generation)
    table = told.name
    begin = None
    if projection.versioned:
        first = f"SELECT min(from_position) FROM {table} WHERE {CALL} = $1"  # noqa: S608 the catalogue's name
        begin = await connection.fetchval(first, key)
    await connection.execute(
        f"DELETE FROM {table} WHERE generation = {generation} AND {CALL} = $1",  # noqa: S608 the catalogue's name
        key,
    )
    await told.unfold(connection, [], [key])
    folder.forget()
    events = await events_of(log, projection, call_id, begin, upto)
    positions = [event.position for event in events if event.stream in streams_of(call_id)]
    await connection.execute(sql.FORGET_ASIDE_AT, projection.name, generation, positions)
    again = Folder(projection, generation, log, owns=lambda name: name == key)
    await again.fold(connection, Page.of(events))
    await again.flush(connection)


def streams_of(call_id: str) -> tuple[str, str]:
    return call_stream(call_id), transfer_stream(call_id)


async def events_of(
    log: EventLog, projection: Projection, call_id: str, begin: int | None, upto: int
) -> list[StoredEvent]:
    """What the call's rows rest on: its own streams, and whatever sweeps rows, from where they began."""
    found: dict[int, StoredEvent] = {}
    for stream in streams_of(call_id):
        for event in await log.read_stream(stream):
            if event.position <= upto and event.kind in projection.kinds:
                found[event.position] = event
    after = min([*found, upto if begin is None else begin]) - 1
    while projection.sweeping and (
        page := await log.read(kinds=sorted(projection.sweeping), after=after, upto=upto)
    ):
        after = page[-1].position
        found |= {event.position: event for event in page}
    return [found[position] for position in sorted(found)]
