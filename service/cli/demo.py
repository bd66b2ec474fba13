"""`calltrail demo`: everything at once on free ports, three transfers, and a check of every claim.

The simulator is the GWS of the demonstration and knows the truth; the demo acts as an agent's application
(an ordinary HTTP client, and a program that sends a message) and as a consumer of the relayed log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import aiohttp
import typer
from faststream.nats import NatsBroker
from nats.js.api import DeliverPolicy
from pydantic import SecretStr

from service.api.events import document
from service.api.serving import serving
from service.app import Application, open_application, running
from service.cli import show
from service.cli.busy import busy_demo
from service.cli.options import AsJson, DataDir, run
from service.config import Agent, load_settings
from service.errors import CalltrailError
from service.messaging import COMMANDS, EMBEDDED, Messaging, TransferMessage, TransferReply, relayed_stream
from service.simulator import Simulator
from service.web import create_site

REQUESTS = [Path(__file__).parent / "data" / f"sample{number}-request.json" for number in (1, 2)]
USERS = ("15000", "15001", "15002")
FACT_S = 20.0  # how long the demo waits for what must come


class DemoFailed(CalltrailError):
    """The demo did not see what it claims."""


def demo(
    keep: Annotated[bool, typer.Option(help="Leave it running, to look around.")] = False,
    busy: Annotated[
        bool, typer.Option(help="Three weeks of a contact centre, instead of three calls.")
    ] = False,
    calls: Annotated[int, typer.Option(min=1, help="With --busy: how many calls.")] = 20_000,
    agents: Annotated[int, typer.Option(min=4, help="With --busy: how many agents.")] = 200,
    seed: Annotated[int, typer.Option(help="With --busy: the same seed gives the same calls.")] = 1,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Start everything, transfer three calls, show and check what was recorded. Needs nothing but itself.

    calltrail demo
    calltrail demo --busy --keep
    """
    if busy:
        settings = load_settings(data_dir=data_dir, port=None if keep else 0)
        run(busy_demo(settings, calls=calls, agents=agents, seed=seed, keep=keep, as_json=as_json))
        return

    async def main() -> None:
        settings = load_settings(data_dir=data_dir, broker=EMBEDDED, port=0)
        agents = [Agent(user=user, password=SecretStr(f"secret-{user}")) for user in USERS]
        async with Simulator(seed=1, agent_count=len(USERS)) as simulator:
            settings = settings.model_copy(update={"gws_url": simulator.url, "host": "127.0.0.1"})
            async with (
                open_application(settings, agents) as application,
                settled(application) as before,
                running(application) as messaging,
                serving(create_site(application.services), settings.host, settings.port) as url,
                aiohttp.ClientSession() as http,
            ):
                assert messaging is not None
                demonstration = Demonstration(application, simulator, messaging, url, http, quiet=as_json)
                result = await demonstration.perform(before)
                if as_json:
                    show.print_json(result)
                if keep:
                    show.console.print(f"Running: {url}/ and its API under {url}/v1. Ctrl-C ends it.")
                    await asyncio.Event().wait()

    run(main())


@asynccontextmanager
async def settled(application: Application) -> AsyncIterator[int]:
    """Bring to an end what an earlier run left open when it was cut off; how many events there are."""
    for _ in range(3):  # dispatched → in doubt → settled
        if not await application.settler.settle_all():
            break
    yield await application.log.next_position()


@dataclass
class Demonstration:
    """One run: what it uses, and what it has seen."""

    application: Application
    simulator: Simulator
    messaging: Messaging
    url: str
    http: aiohttp.ClientSession
    quiet: bool
    run_id: str = field(default_factory=lambda: uuid4().hex[:8])
    relayed: list[dict[str, Any]] = field(default_factory=list)
    more_relayed: asyncio.Event = field(default_factory=asyncio.Event)
    checks: list[str] = field(default_factory=list)

    async def perform(self, before: int) -> dict[str, Any]:
        """Do, show and check it all; `before` is how many events the log held."""
        log = self.application.log
        self.say(f"The log holds {before} events from before.")
        async with self.consuming():
            await self.until("SessionOpened", any_event, before, count=len(USERS))
            call_ids = self.place_calls()
            for call_id in call_ids:
                await self.until("NotificationReceived", established(call_id), before)
            looked_at = await log.next_position() - 1
            transfer_ids = await self.transfer(call_ids)
            for transfer_id in transfer_ids:
                await self.until("TransferConfirmed", of_transfer(transfer_id), before)
            await self.until("NotificationReceived", released(call_ids[1]), before)
            end = await log.next_position()
            await self.caught_up(end - 1)
        trails = [await self.get(f"/v1/transfers/{one}", min_position=end - 1) for one in transfer_ids]
        moments = [await self.compare(call_id, looked_at) for call_id in call_ids]
        executed = {one: len(self.simulator.truth.transfers_of(one)) for one in call_ids}
        self.show_result(trails, moments, executed)
        self.check_result(trails, moments, executed, before)
        self.say_next(trails[1])
        return {
            "transfers": trails,
            "calls": moments,
            "executed": executed,
            "events": await log.next_position(),
            "events_before": before,
            "checked": self.checks,
        }

    # What is done

    def place_calls(self) -> list[str]:
        """The samples' two calls, and a third; 15000 has answered all of them."""
        first, second = self.simulator.place_sample_calls()
        third = self.simulator.place_call("15001", "15000")
        self.simulator.answer(third.id, "15000")
        return [first.id, second.id, third.id]

    async def transfer(self, call_ids: list[str]) -> list[str]:
        """Two transfers by HTTP, the second of them sent twice, and a third by a message."""
        first = await self.post(call_ids[0], REQUESTS[0].read_bytes(), "1")
        second, again = await asyncio.gather(
            *(self.post(call_ids[1], REQUESTS[1].read_bytes(), "2") for _ in range(2))
        )
        self.check("the second transfer's repetition is answered from the first", second == again)
        async with NatsBroker(self.messaging.url, logger=None) as broker:
            message = TransferMessage(
                call_id=call_ids[2],
                agent="15000",
                destination="15002",
                user_data={"TransferReason": "Callback"},
                key=f"demo-{self.run_id}-3",
            )
            response = await broker.request(message, COMMANDS, timeout=FACT_S)
        reply = TransferReply.model_validate(await response.decode())
        self.check("the third transfer, by message, is accepted", reply.status_code == 0)
        return [first, second, str(reply.transfer_id)]

    async def post(self, call_id: str, body: bytes, key: str) -> str:
        """POST to the drop-in endpoint as 15000's application would; returns the transfer's id."""
        async with self.http.post(
            f"{self.url}/api/v2/me/calls/{call_id}",
            data=body,
            headers={
                "Authorization": aiohttp.encode_basic_auth("15000", "secret-15000"),
                "Content-Type": "application/json",
                "Idempotency-Key": f"demo-{self.run_id}-{key}",
            },
        ) as response:
            answer = await response.json(content_type=None)
            self.check(f"GWS's own answer comes back for {call_id[-8:]}", answer == {"statusCode": 0})
            return response.headers["Calltrail-Transfer"]

    async def compare(self, call_id: str, looked_at: int) -> dict[str, Any]:
        """A call before its transfer and now."""
        before = await self.get(f"/v1/calls/{call_id}", as_of=looked_at)
        return {"call_id": call_id, "before": before, "after": await self.get(f"/v1/calls/{call_id}")}

    async def get(self, path: str, **query: int) -> dict[str, Any]:
        parameters = {name: str(value) for name, value in query.items()}
        async with self.http.get(self.url + path, params=parameters) as response:
            document: dict[str, Any] = await response.json(content_type=None)
            if response.status != 200:
                raise DemoFailed(f"GET {path}: {document}")
            return document

    # What is waited for

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        """Consume the relayed log with FastStream, and print each event as it lands."""
        broker = NatsBroker(self.messaging.url, logger=None)
        prefix = self.application.settings.subject_prefix

        @broker.subscriber(f"{prefix}.log.>", stream=relayed_stream(prefix), deliver_policy=DeliverPolicy.NEW)
        async def landed(event: dict[str, Any]) -> None:
            self.relayed.append(event)
            self.more_relayed.set()
            self.say(f"{event['position']:>6}  {event['kind']:<22} {show.gist(event)}")

        async with broker:
            await broker.start()
            yield

    async def until(
        self, kind: str, fits: Callable[[dict[str, Any]], bool], after: int, *, count: int = 1
    ) -> None:
        """Wait until `count` events of `kind` that fit are in the log after a position."""
        found = 0
        try:
            async with asyncio.timeout(FACT_S):
                async for page in self.application.log.follow(after=after - 1):
                    found += sum(event.kind == kind and fits(document(event)) for event in page)
                    if found >= count:
                        return
        except TimeoutError:
            raise DemoFailed(f"no {kind} within {FACT_S:.0f} s") from None

    async def caught_up(self, position: int) -> None:
        """Wait until the consumer has been given everything up to `position`."""
        async with asyncio.timeout(FACT_S):
            while not self.relayed or self.relayed[-1]["position"] < position:
                await self.more_relayed.wait()
                self.more_relayed.clear()

    # What is shown and checked

    def show_result(
        self, trails: list[dict[str, Any]], moments: list[dict[str, Any]], executed: dict[str, int]
    ) -> None:
        if self.quiet:
            return
        for trail in trails:
            show.console.print()
            show.print_trail(trail)
        show.console.print()
        columns = ("call", "before: number, state", "after: number, state")
        rows = [(m["call_id"], legs(m["before"]), legs(m["after"])) for m in moments]
        show.print_table("The calls before and after", columns, rows)
        show.console.print()
        show.print_table("What GWS executed, by its own count", ("call", "transfers"), list(executed.items()))

    def check_result(
        self,
        trails: list[dict[str, Any]],
        moments: list[dict[str, Any]],
        executed: dict[str, int],
        before: int,
    ) -> None:
        second = trails[1]
        positions = [event["position"] for event in self.relayed if event["position"] >= before]
        self.check("each transfer was executed exactly once", set(executed.values()) == {1})
        self.check("each is confirmed, with evidence", all(t["evidence"] for t in trails))
        self.check("the reason is on record", second["reason"] == "Escalation")
        self.check("and the agent named", second["user_data"].get("TransferAgent") == "WillardC")
        self.check(
            "15000 had each call before, and no longer has it",
            all("15000 Established" in legs(m["before"]) for m in moments)
            and all("15000 Released" in legs(m["after"]) for m in moments),
        )
        self.check(
            "the relay gave every event once, in order", positions == list(range(before, positions[-1] + 1))
        )

    def check(self, claim: str, holds: bool) -> None:
        if not holds:
            raise DemoFailed(f"not so: {claim}")
        self.checks.append(claim)

    def say(self, line: str) -> None:
        if not self.quiet:
            show.console.print(line, markup=False, soft_wrap=True)

    def say_next(self, transfer: dict[str, Any]) -> None:
        self.say(f"\nChecked: {'; '.join(self.checks)}.\n\nNow try:")
        for command in (
            f"calltrail history {transfer['call_id']}",
            f"calltrail transfer show {transfer['transfer_id']}",
            f"calltrail calls --all --as-of {transfer['first_position']}",
            "calltrail transfers --reason Escalation",
            "calltrail rebuild",
        ):
            self.say(f"  {command}")


def legs(call: dict[str, Any]) -> str:
    """Each leg; of one that is known from a snapshot alone, GWS has told the agent and not yet the number."""
    return ", ".join(f"{leg['phone_number'] or leg['agent'] or '-'} {leg['state']}" for leg in call["legs"])


def any_event(_: dict[str, Any]) -> bool:
    return True


def established(call_id: str) -> Callable[[dict[str, Any]], bool]:
    return heard(call_id, '"state":"Established"')


def released(call_id: str) -> Callable[[dict[str, Any]], bool]:
    return heard(call_id, '"state":"Released"')


def heard(call_id: str, text: str) -> Callable[[dict[str, Any]], bool]:
    """Fits notifications to 15000 of this call that hold `text`, white space aside."""
    return lambda event: (
        event["stream"] == f"call-{call_id}"
        and event["data"]["agent"] == "15000"
        and text in event["body"].replace(" ", "")
    )


def of_transfer(transfer_id: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["data"]["transfer_id"] == transfer_id
