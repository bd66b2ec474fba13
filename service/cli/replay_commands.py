"""Commands that go through time: replay, diff."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import click
import msgspec
import typer

from service.api.events import document
from service.api.moments import resolve
from service.api.replay import step_document, stretch
from service.cli import show
from service.cli.options import AsCsv, AsJson, DataDir, reading, run
from service.errors import BadConfig
from service.events import call_stream
from service.projections import Step, call_story, difference_between, in_tempo

FORWARD, BACK, FIRST, LAST, END = (
    {" ", "n", "\r", "\x1b[C"},
    {"b", "p", "\x1b[D"},
    {"0"},
    {"$"},
    {"q", "\x1b", "\x03"},
)


def replay(
    call: Annotated[
        str | None, typer.Argument(help="A call to step through; without it, all history.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From this position or time on.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this position or time.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="So many times faster; 0: at once.")] = 1.0,
    broker: Annotated[str | None, typer.Option(help="Publish to this NATS URL instead.")] = None,
    subject: Annotated[str, typer.Option(help="Where to publish: <subject>.<kind>.")] = "calltrail.replay",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Step through one call, or tell history again in its own tempo.

    calltrail replay 01RCC3N118B1V0SL8O7GK2LAES00000G
    calltrail replay --since 2026-11-24T09:00:00Z --until 2026-11-24T10:00:00Z --speed 10
    calltrail replay --since 100 --speed 0 --json

    Keys: space forward, b back, g to a position, 0 first, $ last, q end. With --json, history is one
    document a line.
    """
    timed = since is not None or until is not None
    if call is None and not timed:
        raise BadConfig("CALL", "is missing", "Name a call, or give --since or --until")

    async def main() -> None:
        async with reading(data_dir) as at:
            if call is not None and not timed and broker is None:
                steps = await call_story(at.log, at.queries, call)
                show_steps(call, steps, as_json=as_json)
                return
            after, upto = await stretch(at.log, since, until)
            stream = call_stream(call) if call else None
            async with publishing(broker, subject) as publish:
                async for event in in_tempo(at.log, after=after, upto=upto, speed=speed, stream=stream):
                    told = document(event)
                    if publish is not None:
                        await publish(told)
                    elif as_json:
                        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
                        sys.stdout.flush()
                    else:
                        at_time, kind = told["recorded_at"][11:23], f"{event.kind:<22}"
                        line = f"{at_time} {event.position:>6}  {kind} {show.gist(told)}"
                        show.console.print(line, markup=False, soft_wrap=True)

    run(main())


@asynccontextmanager
async def publishing(
    broker: str | None, subject: str
) -> AsyncIterator[Callable[[dict[str, Any]], Any] | None]:
    """What publishes an event's document to the broker; None without one."""
    if broker is None:
        yield None
        return
    from faststream.nats import NatsBroker

    async with NatsBroker(broker, logger=None) as connected:

        async def publish(told: dict[str, Any]) -> None:
            await connected.publish(
                told, f"{subject}.{told['kind']}", headers={"Nats-Msg-Id": str(told["position"])}
            )

        yield publish


def show_steps(call: str, steps: list[Step], *, as_json: bool) -> None:
    """All steps for programs and pipes, one at a time for people."""
    if as_json:
        show.print_json({"call_id": call, "steps": [step_document(step) for step in steps]})
    elif sys.stdin.isatty() and sys.stdout.isatty():
        step_through(steps)
    else:
        for place, step in enumerate(steps):
            show_step(place, step, steps)


def step_through(steps: list[Step], key: Callable[[], str] = click.getchar) -> None:
    """Let a person go forward and back."""
    place = 0
    while True:
        show.console.clear()
        show_step(place, steps[place], steps)
        pressed = key()
        if pressed in END:
            return
        if pressed in FORWARD:
            place = min(place + 1, len(steps) - 1)
        elif pressed in BACK:
            place = max(place - 1, 0)
        elif pressed in FIRST:
            place = 0
        elif pressed in LAST:
            place = len(steps) - 1
        elif pressed == "g":
            wanted = typer.prompt("position", type=int)
            place = max((n for n, step in enumerate(steps) if step.event.position <= wanted), default=0)


def show_step(place: int, step: Step, steps: list[Step]) -> None:
    event = document(step.event)
    show.console.print(
        f"{place + 1}/{len(steps)}  position {step.event.position}  {event['recorded_at']}  "
        f"{step.event.kind}  {show.gist(event)}",
        markup=False,
        soft_wrap=True,
        style="bold",
    )
    for device, leg in step.legs.items():
        mark = "*" if device in step.changed else " "
        company = ", ".join(leg["participants"]) or "nobody"
        show.console.print(
            f"  {mark} {leg['phone_number'] or device}: {leg['state']}, with {company}", markup=False
        )
        for name, (before, after) in step.changed.get(device, {}).items():
            show.console.print(f"      {name}: {before!r} → {after!r}", markup=False, soft_wrap=True)


def diff(
    first: Annotated[str, typer.Argument(help="A position or a time.")],
    second: Annotated[str, typer.Argument(help="Another.")],
    call: Annotated[str | None, typer.Option(help="Only this call.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's legs.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Compare two moments: which legs appeared, which are gone, and which changed, field by field.

    calltrail diff 20 42
    calltrail diff 2026-11-24T09:00:00Z 2026-11-24T09:05:00Z --agent 15000
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            positions = await asyncio.gather(*(resolve(at.log, moment) for moment in (first, second)))
            one, other = (-1 if position is None else position for position in positions)
            found = await difference_between(at.queries, one, other, call_id=call, agent=agent)
        rows = [
            {"call_id": each.call_id, "device": each.device, "what": each.what}
            | {"field": name, "before": before, "after": after}
            for each in found
            for name, (before, after) in each.fields.items()
        ]
        columns = ("call", "device", "what", "field", "before", "after")
        show.print_list(
            rows,
            lambda: show.print_table(
                f"From position {one} to {other}", columns, ([*row.values()] for row in rows)
            ),
            document={"first": one, "second": other, "differences": [each._asdict() for each in found]},
            nothing="No difference.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())
