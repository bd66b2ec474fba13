"""Commands about personal data: redact, redactions, hold."""

from __future__ import annotations

import getpass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from service.api.moments import zoned
from service.api.redactions import hold_document, plan_document
from service.cli import show
from service.cli.options import AsCsv, AsJson, DataDir, reading, run
from service.errors import BadConfig
from service.redaction import (
    Fields,
    Order,
    Redactor,
    Scope,
    list_holds,
    list_redactions,
    place_hold,
    release_hold,
)

By = Annotated[str | None, typer.Option(help="Who asks; by default the user logged in.")]
ApprovedBy = Annotated[str | None, typer.Option(help="A second person who approves.")]
When = Annotated[datetime | None, typer.Option(help="ISO 8601; UTC if no zone is given.")]


def redact(
    call: Annotated[str, typer.Option(help="The call's id.")],
    fields: Annotated[str, typer.Option(help="Paths, with commas: userData.*,participants.*.phoneNumber")],
    why: Annotated[str, typer.Option(help="On what grounds; goes on record.")],
    by: By = None,
    approved_by: ApprovedBy = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what it would do.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Blank fields in every event of a call, for good, unless a legal hold covers it.

    calltrail redact --call 01RCC3… --fields 'userData.*,participants' --why "request of 3 May"
    calltrail redact --call 01RCC3… --fields 'userData.*,participants' --why "request of 3 May" --yes
    """
    order = Order(call, Fields(fields.split(",")), by or getpass.getuser(), why, approved_by)

    async def main() -> None:
        async with reading(data_dir) as at:
            redactor = Redactor(at.database, at.log, at.engine)
            positions: list[int] = []
            if yes:
                outcome = await redactor.redact(order)
                plan, positions = outcome.plan, list(outcome.positions)
            else:
                plan = await redactor.plan(order)
        document = plan_document(plan)
        if as_json:
            show.print_json({"redacted": yes, "recorded_at_positions": positions, **document})
            return
        show_plan(document, "blanked" if yes else "would be blanked")
        if not yes and plan.hold is None:
            show.console.print("Nothing was changed: say --yes to do it.")

    run(main())


def show_plan(plan: dict[str, Any], fate: str) -> None:
    show.console.print(f"{len(plan['events'])} events {fate}.")
    if plan["fields"]:
        show.print_table("Fields", ("field", "times"), plan["fields"].items())
    if plan["remaining"]:
        show.print_table("The same values also stand in", ("field", "times"), plan["remaining"].items())
    if plan["dictionaries"]:
        numbers = ", ".join(map(str, plan["dictionaries"]))
        show.console.print(f"Values common to many calls stand in dictionaries too: {numbers}.")
    if (hold := plan["hold"]) is not None:
        show.console.print(
            f"Refused until it is released: legal hold of case {hold['case']}, placed by {hold['placed_by']} "
            f"on {hold['placed_at']} ({hold['hold_id']}).",
            markup=False,
            soft_wrap=True,
        )


def redactions(
    call: Annotated[str | None, typer.Option(help="Of this call.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List what was redacted and what was refused: when, by whom, on what grounds.

    calltrail redactions --json > redactions.json   # keep it with your backups
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            rows = await list_redactions(at.log, call)
        columns = ("position", "recorded at", "outcome", "call", "what, by whom, why")
        told = [
            (
                row["position"],
                show.moment(row["recorded_at"]),
                row["outcome"],
                row["call_id"],
                f"{', '.join(row['fields'])}, by {row['who']}: {row['why']}",
            )
            for row in rows
        ]
        show.print_list(
            rows,
            lambda: show.print_table("Redactions", columns, told),
            document={"redactions": rows},
            nothing="Nothing was redacted.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def add_hold(
    case: Annotated[str, typer.Option(help="The matter, as your lawyers name it.")],
    why: Annotated[str, typer.Option(help="On what grounds.")],
    by: By = None,
    call: Annotated[str | None, typer.Option(help="Only this call.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only calls of this agent.")] = None,
    since: When = None,
    until: When = None,
    everything: Annotated[bool, typer.Option("--all", help="All calls.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Place a legal hold: until it is released, nothing in its scope is redacted.

    calltrail hold add --case C-17 --agent 15000 --since 2026-01-01 --why "letter of the court"
    """
    scope = Scope(call, agent, zoned(since), zoned(until))
    if (scope == Scope()) is not everything:
        raise BadConfig("--all", "and a narrower scope exclude each other", "Give one of them")

    async def main() -> None:
        async with reading(data_dir) as at:
            placed = await place_hold(at.log, case, scope, who=by or getpass.getuser(), why=why)
        if as_json:
            show.print_json({"hold_id": placed.hold_id})
        else:
            show.console.print(f"Hold {placed.hold_id} is placed.", soft_wrap=True)

    run(main())


def release(
    hold: Annotated[str, typer.Argument(help="The hold's id.")],
    why: Annotated[str, typer.Option(help="On what grounds.")],
    by: By = None,
    approved_by: ApprovedBy = None,
    data_dir: DataDir = None,
) -> None:
    """Release a legal hold.

    calltrail hold release 0192… --why "case closed" --approved-by "A. Counsel"
    """
    try:
        hold_id = UUID(hold)
    except ValueError:
        raise BadConfig("hold", f"{hold!r} is no id", "See calltrail hold list") from None

    async def main() -> None:
        async with reading(data_dir) as at:
            released = await release_hold(
                at.log, hold_id, who=by or getpass.getuser(), why=why, approved_by=approved_by
            )
        show.console.print(f"Hold {hold_id} is released by {released.who}.", markup=False, soft_wrap=True)

    run(main())


def holds(data_dir: DataDir = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List every legal hold, and whether it still stands.

    calltrail hold list
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            found = [hold_document(hold) for hold in (await list_holds(at.log)).holds]
        columns = ("hold", "case", "by", "placed at", "covers", "released at")
        told = [
            (
                one["hold_id"],
                one["case"],
                one["placed_by"],
                show.moment(one["placed_at"]),
                covered(one),
                show.moment(one["released_at"]),
            )
            for one in found
        ]
        show.print_list(
            found,
            lambda: show.print_table("Legal holds", columns, told),
            document={"holds": found},
            nothing="There is no hold.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def covered(hold: dict[str, Any]) -> str:
    """The scope of a hold in words."""
    limits = {"call": "call_id", "agent": "agent", "from": "since", "until": "until"}
    said = [f"{word} {hold[name]}" for word, name in limits.items() if hold[name] is not None]
    return ", ".join(said) or "all calls"
