"""A calltrail beside a simulated GWS, on a real Postgres, as tests of transfers use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import aiohttp
from pydantic import SecretStr
from sqlalchemy.engine import URL

from service.api import Services, create_api
from service.api.serving import serving
from service.cometd import shared_http
from service.config import Agent, Settings
from service.log import EventLog, open_log
from service.postgres import Database, open_pools
from service.projections import Engine, Queries, catalogue
from service.recorder import Access, Accesses, Clients, Recorder, Vault
from service.simulator import Call, Simulator
from service.transfers import Settler, State, Timing, Transfer, TransferHandler, build_body
from service.transfers.decider import SETTLEABLE, UNANSWERED
from service.transfers.evidence import Seen

QUICK = Timing(
    answer_s=20.0,
    settle_s=0.3,
    wait_s=20.0,
    lease_s=20.0,
    attempts=3,
    first_pause_s=0.05,
    patience_s=60.0,
    watch_s=60.0,
)
"""What a test waits for comes soon; what only a stalled machine would bring about does not come."""
DYING = replace(QUICK, answer_s=1.0, lease_s=0.9)
"""For processes that are killed: their claims are soon over."""
FACT_S = 30.0
USERS = ("15000", "15001", "15002", "15003")
OPEN = SETTLEABLE | UNANSWERED


@dataclass(frozen=True)
class Answered:
    """An HTTP answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def transfer_id(self) -> UUID:
        return UUID(self.headers["Calltrail-Transfer"])


@dataclass(frozen=True)
class Site:
    """One process's calltrail: all of it, with the loops that were asked for running."""

    simulator: Simulator
    database: Database
    log: EventLog
    handler: TransferHandler
    settler: Settler
    recorder: Recorder
    services: Services
    url: str
    http: aiohttp.ClientSession

    def call(self, agent: str = "15000", caller: str = "15001", **given: Any) -> Call:
        """A call that `agent` has answered."""
        call = self.simulator.place_call(caller, agent, **given)
        self.simulator.answer(call.id, agent)
        return call

    async def seen_call(self, agent: str = "15000", caller: str = "15001") -> Call:
        """A call that `agent` has answered, and of which that is recorded."""
        call = self.call(agent, caller)
        await self.recorded(f"call-{call.id}", lambda event: b'"Established"' in event.payload)
        return call

    async def hung_up_in_doubt(self) -> Transfer:
        """A transfer that nothing recorded settles: the connection broke, and the caller hung up.

        Its settler must not be running yet: it might ask GWS before the caller has hung up.
        """
        call = await self.seen_call()
        self.simulator.faults.add("drop_before_execution", call=call.id)
        await self.post(call.id)
        self.simulator.hangup(call.id, "15000")
        self.settler.loop.start()
        await self.recorded(f"call-{call.id}", lambda event: event.kind == "CallSnapshotTaken")
        [transfer] = await self.transfers(call.id)
        return transfer

    async def post(
        self,
        call_id: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        agent: str = "15000",
        to: str = "15002",
    ) -> Answered:
        """POST to the drop-in endpoint."""
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
        return await self.send(
            f"/api/v2/me/calls/{call_id}",
            build_body(to, None, None) if body is None else body,
            headers,
            (agent, f"secret-{agent}"),
        )

    async def command(self, call_id: str, to: str = "15002", **given: Any) -> Answered:
        """POST to /v1/transfers; `prefer` and `key` are headers."""
        names = {"prefer": "Prefer", "key": "Idempotency-Key"}
        headers = {names[name]: given.pop(name) for name in names if name in given}
        document = {"agent": "15000", "call": call_id, "destination": to, **given}
        return await self.send("/v1/transfers", json.dumps(document).encode(), headers)

    async def send(
        self, path: str, body: bytes, headers: dict[str, str], basic: tuple[str, str] | None = None
    ) -> Answered:
        if basic is not None:
            headers = {**headers, "Authorization": aiohttp.encode_basic_auth(*basic)}
        async with self.http.post(self.url + path, data=body, headers=headers) as response:
            return Answered(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Answered:
        async with self.http.get(self.url + path) as response:
            return Answered(response.status, response.headers, await response.read())

    async def transfers(self, call_id: str) -> list[Transfer]:
        return list((await self.handler.journal.load(call_id)).transfers.values())

    async def ended(self, call_id: str, *, within_s: float = FACT_S, but: Iterable[State] = OPEN) -> Transfer:
        """The call's last transfer, once it is none of the states `but`."""
        async with asyncio.timeout(within_s):
            while True:
                head = self.log.watch.next_position - 1
                found = await self.transfers(call_id)
                if found and found[-1].state not in set(but):
                    return found[-1]
                await self.log.watch.beyond(head)

    async def kinds(self, call_id: str) -> list[str]:
        """The kinds of all events about the call's transfers, in order."""
        return [event.kind for event in await self.log.read_stream(f"transfer-{call_id}")]

    async def recorded(self, stream: str, fits: Callable[[Any], bool], *, within_s: float = FACT_S) -> None:
        """Wait until an event that fits is in a stream."""
        async with asyncio.timeout(within_s):
            while True:
                head = self.log.watch.next_position - 1
                if any(fits(event) for event in await self.log.read_stream(stream)):
                    return
                await self.log.watch.beyond(head)

    async def told(self, fits: Callable[[Seen], bool]) -> None:
        """Wait until a notification that fits is recorded, whatever it is about."""
        async with asyncio.timeout(FACT_S):
            while True:
                head = self.log.watch.next_position - 1
                stored = await self.log.read(kinds=["NotificationReceived"], limit=100_000)
                if any(fits(seen) for one in stored if (seen := Seen.of(one)) is not None):
                    return
                await self.log.watch.beyond(head)

    async def opened(self, sessions: int) -> None:
        """Wait until so many CometD sessions are open: what happens from then on is recorded."""
        async with asyncio.timeout(FACT_S):
            while True:
                head = self.log.watch.next_position - 1
                if len(await self.log.read(kinds=["SessionOpened"])) >= sessions:
                    return
                await self.log.watch.beyond(head)

    def executed(self, call_id: str) -> int:
        return len(self.simulator.truth.transfers_of(call_id))


@asynccontextmanager
async def open_site(
    url: URL,
    simulator: Simulator,
    timing: Timing = QUICK,
    *,
    users: Iterable[str] = USERS,
    recording: bool = True,
    settling: bool = True,
    queueing: bool = True,
    folding: bool = False,
    gws_url: str | None = None,
) -> AsyncIterator[Site]:
    """Open a calltrail on the database `url`, talking to `simulator`."""
    agents = [Agent(user=user, password=SecretStr(f"secret-{user}")) for user in users]
    settings = Settings(database_url=str(url), gws_url=gws_url or simulator.url, port=0)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(open_pools(url))
        log = await enter(open_log(database, max_payload_bytes=settings.max_payload_bytes))
        gws_http = await enter(shared_http())
        accesses = Accesses(
            lambda agent: Access.of(agent, gws_http, settings.gws_url, timeout_s=timing.answer_s), agents
        )
        handler = TransferHandler(database, log, Clients(accesses), timing)
        stack.push_async_callback(handler.stop)
        settler = Settler(handler)
        vault = Vault(Path(stack.enter_context(TemporaryDirectory())))
        recorder = Recorder(database, log, accesses, vault, settings.gws_url)
        engine = Engine(database, log, catalogue())
        for loop, wanted in (
            (handler.dispatcher.queue, queueing),
            (settler.loop, settling),
            (engine.loop, folding),
        ):
            if wanted:
                loop.start()
            stack.push_async_callback(loop.stop)  # a test may start it later
        if recording:
            recorder.start()
            stack.push_async_callback(recorder.stop)
        services = Services(
            settings=settings,
            accesses=accesses,
            database=database,
            log=log,
            handler=handler,
            engine=engine,
            queries=Queries(database),
        )
        api = await enter(serving(create_api(services), "127.0.0.1", 0))
        http = await enter(aiohttp.ClientSession())
        site = Site(simulator, database, log, handler, settler, recorder, services, api, http)
        if recording:
            await site.opened(len(agents))
        yield site
