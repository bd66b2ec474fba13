"""Commands that read: calls, history, coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from service.api.moments import resolve
from service.api.replay import step_document
from service.audit.known import spans_known
from service.cli import show
from service.cli.options import AsCsv, AsJson, AsOf, DataDir, reading, run
from service.errors import NotFound
from service.projections import Step, call_story, calls_of


def calls(
    as_of: AsOf = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's legs.")] = None,
    call: Annotated[str | None, typer.Option(help="Only this call, even if it is over.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also calls that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most legs to show; the newest are.")] = 1_000,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show calls and their legs, now or as of any moment.

    calltrail calls
    calltrail calls --as-of 42 --agent 15000
    calltrail calls --as-of 2026-11-24T09:30:00Z --json
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            position = await resolve(at.log, as_of)
            rows = await at.queries.legs(
                as_of=position, agent=agent, call_id=call, include_over=every, newest=limit + 1
            )
        if len(rows) > limit:
            rows = rows[-limit:]
            typer.echo(f"There are more than {limit:,} legs: these are the newest. Use --limit", err=True)
        title = "Calls" if position is None else f"Calls as of position {position}"
        show.print_list(
            rows,
            lambda: show.print_legs(title, rows),
            document={"as_of": position, "calls": calls_of(rows)},
            nothing="No live calls. Those that are over: calltrail calls --all",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def history(
    call: Annotated[str, typer.Argument(help="The call's id.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show every event of a call, in order: what GWS said, what was commanded, and what each changed.

    calltrail history 01RCC3N118B1V0SL8O7GK2LAES00000G
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            steps = await call_story(at.log, at.queries, call)
        events = [step_document(step) for step in steps]
        told = [
            (event["position"], step.event.recorded_at, event["kind"], show.gist(event), changes_text(step))
            for event, step in zip(events, steps, strict=True)
        ]
        columns = ("position", "recorded at", "kind", "what", "changed")
        show.print_list(
            events,
            lambda: show.print_table(f"Call {call}", columns, told),
            document={"call_id": call, "events": events},
            nothing=f"Nothing is recorded of call {call}.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def changes_text(step: Step) -> str:
    """What a step changed, field by field, in a line for each leg."""
    return "; ".join(
        f"{step.legs[device]['phone_number'] or device}: "
        + ", ".join(f"{name} → {after}" for name, (_, after) in change.items() if after not in (None, [], {}))
        for device, change in step.changed.items()
    )


def coverage(
    agent: Annotated[str | None, typer.Argument(help="Only this agent.")] = None,
    as_of: AsOf = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show in which spans each agent's record is complete, and where it has gaps.

    calltrail coverage 15000
    calltrail coverage 15000 --as-of 2026-11-24T09:30:00Z
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            position = await resolve(at.log, as_of)
            if position is None:
                found = await at.queries.coverages()
            else:
                known = await spans_known(at.log, position)
                found = [{"agent": one, "spans": spans} for one, spans in known.items()]
        agents = [one for one in found if agent in {None, one["agent"]}]
        if agent is not None and not agents:
            raise NotFound(f"no session of agent {agent} is recorded" + (f" as of {as_of}" if as_of else ""))
        show.print_list(
            [{"agent": one["agent"], **span} for one in agents for span in one["spans"]],
            lambda: show_coverage(agents),
            document={"as_of": position, "agents": agents},
            nothing="No agent is recorded. Name some: calltrail serve --agents-file …",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def show_coverage(agents: Sequence[dict[str, Any]]) -> None:
    columns = ("kind", "from", "to", "why", "position")
    for one in agents:
        spans = [
            (span["kind"], show.moment(span["from"]), show.moment(span["to"]), span["why"], span["position"])
            for span in one["spans"]
        ]
        show.print_table(f"Agent {one['agent']}", columns, spans)
