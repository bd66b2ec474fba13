"""Commands for auditors and analysts: transfers, one transfer's trail, reasons."""

from __future__ import annotations

from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
import typer
from typer.core import TyperGroup

from service.analytics import (
    BUCKETS,
    Bucket,
    Rate,
    TransferFilter,
    count_transfers,
    freshness,
    transfer_rate,
    transfers_over_time,
)
from service.api.moments import resolve
from service.audit.transfers import SORTS, Sort, list_transfers, transfer_trail
from service.cli import show
from service.cli.filtering import filtered
from service.cli.options import AsCsv, AsJson, AsOf, DataDir, reading, run


class ShowById(TyperGroup):
    """A group that takes a transfer's id for the command `show` with that id."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and is_id(args[0]):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


def is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@filtered
def transfers(
    wanted: TransferFilter,
    sort: Annotated[str, typer.Option(help=f"{', '.join(SORTS)}; a minus turns the order.")] = "-time",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before (--json).")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List transfers, newest first: who, where to, why, and what became of them.

    calltrail transfers --reason Escalation --data Segment=Premium
    calltrail transfers --in-doubt --json
    calltrail transfers --observed --gap --sort agent --csv
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            page = await list_transfers(
                at.database, at.queries, wanted, sort=cast("Sort", sort), limit=limit, cursor=cursor
            )
        title = f"Transfers: {len(page.transfers)} of {page.total}"
        show.print_list(
            page.transfers,
            lambda: show.print_transfers(title, page.transfers),
            document=msgspec.structs.asdict(page),
            nothing="No transfer fits.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def trail(
    transfer: Annotated[str, typer.Argument(help="The transfer's id.")],
    as_of: AsOf = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one transfer's audit trail, now or as it was known at any moment: steps, outcome, evidence.

    calltrail transfer 01a2b3c4-…
    calltrail transfer 01a2b3c4-… --as-of 2026-11-24T09:30:00Z
    """
    if not is_id(transfer):
        raise typer.BadParameter(f"{transfer} is not a transfer's id; see `calltrail transfers`")

    async def main() -> None:
        async with reading(data_dir) as at:
            position = await resolve(at.log, as_of)
            found = await transfer_trail(at.database, at.queries, at.log, UUID(transfer), position)
        whole = found.document()
        events = [msgspec.structs.asdict(event) for event in found.events]
        if as_json:
            show.print_json({**whole, "events": events})
            return
        show.print_trail(whole)
        columns = ("position", "kind", "recorded_at", "role")
        show.print_table("Events", columns, [[event[name] for name in columns] for event in events])
        if events:
            show.console.print(f"Prove one: calltrail prove {events[0]['position']}")

    run(main())


@filtered
def reasons(
    wanted: TransferFilter,
    by: Annotated[
        str, typer.Option(help="reason, agent, destination, outcome …, or data. and a key.")
    ] = "reason",
    bucket: Annotated[str | None, typer.Option(help=f"Over time: {', '.join(BUCKETS)}.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1_000, help="The others are counted together.")] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Count transfers by reason, or by anything else, and over time.

    calltrail reasons
    calltrail reasons --by agent --since 2026-11-01
    calltrail reasons --by data.Segment --bucket day --csv
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            figures: tuple[Any, ...]
            if bucket is None:
                figures = await count_transfers(at.database, wanted, by=by, top=top)
            else:
                figures = await transfers_over_time(
                    at.database, wanted, by=by, bucket=cast("Bucket", bucket), top=top
                )
            [rate] = await transfer_rate(at.database, wanted)
            fresh = await freshness(at.database)
        rows = [msgspec.structs.asdict(figure) for figure in figures]
        show.print_list(
            rows,
            lambda: print_reasons(by, rows, rate),
            document={"rows": rows}
            | {"rate": msgspec.structs.asdict(rate), "fresh": msgspec.structs.asdict(fresh)},
            nothing="No transfer fits.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def print_reasons(by: str, rows: list[dict[str, Any]], rate: Rate) -> None:
    total = sum(row["transfers"] for row in rows)
    columns = (*(("begins",) if "begins" in rows[0] else ()), by, "transfers", "share", "carried out")
    cells = [
        [
            *((row["begins"],) if "begins" in row else ()),
            "(all others)" if row["value"] is None else row["value"],
            row["transfers"],
            f"{row['transfers'] / total:.1%}",
            row["carried_out"],
        ]
        for row in rows
    ]
    show.print_table(f"{total} transfers by {by}", columns, cells)
    if rate.transferred_call_rate is not None:
        show.console.print(
            f"{rate.transferred_calls} of {rate.calls} handled calls transferred "
            f"({rate.transferred_call_rate:.1%}); {rate.transfers_per_call:.2f} transfers per call.",
            soft_wrap=True,
        )
