"""A recorder on the client, against the model server, under schedules of faults and crashes.

Whatever happens: what the server deletes as acknowledged is durable here; every event is recorded once, in
order; and every event that is not recorded lies in a gap that the client told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest
from bayeux_model import CHANNEL, FAULTS, Network, Server, VirtualLoop, wall
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.cometd import (
    Client,
    Delivery,
    Item,
    Lost,
    Opened,
    PossibleGap,
    Resumed,
    ResumeState,
    Stopped,
)

FATES = (
    "durable",
    "not durable",  # the database is away: certainly nothing was written
    "unknown",  # written, but the answer was lost
    "slow",  # durable, after longer than the server waits
    "crash before",
    "crash after",
    "close and keep",  # a deployment: durable, then an end in good order, and a successor
)


class Crashed(Exception):
    """The process is gone."""


@dataclass(frozen=True)
class Schedule:
    ack: bool
    events_first: bool
    resumes: bool  # whether a new process takes up the session of the old one
    faults: list[str]
    fates: list[str]
    pauses: list[float]  # between events
    seed: int


def mostly(usual: str, others: tuple[str, ...], size: int) -> st.SearchStrategy[list[str]]:
    """Draw up to `size` entries, about half of them the usual one, so that much goes on in between."""
    entry = st.sampled_from((*[usual] * len(others), *others))
    return st.integers(0, size).flatmap(lambda length: st.lists(entry, min_size=length, max_size=length))


schedules = st.builds(
    Schedule,
    ack=st.booleans(),
    events_first=st.booleans(),
    resumes=st.booleans(),
    faults=mostly("none", FAULTS, 60),
    fates=mostly("durable", FATES, 15),
    pauses=st.lists(st.sampled_from((0.0, 0.01, 0.3, 1.0, 4.0, 11.0, 25.0)), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
)


@dataclass
class Disk:
    """What survives a crash: the log, and in the same transactions the place in the session."""

    events: dict[tuple[str, int], int] = field(default_factory=dict)
    resume: ResumeState | None = None
    acked: int = 0
    base: int = 0
    since: float | None = None  # when the last transaction was, the end of what is certain after a crash
    told: list[Item] = field(default_factory=list)
    crashes: list[float | None] = field(default_factory=list)  # since when nobody can be sure


class Recorder:
    """Follows the recipe: ids of session and count, append, confirm."""

    def __init__(self, disk: Disk, fates: Iterator[str]) -> None:
        self.disk = disk
        self.fates = fates
        self.session = disk.resume.client_id if disk.resume is not None else ""
        self.base = disk.base

    async def run(self, client: Client) -> None:
        async with aclosing(client.deliveries()) as items:  # type: ignore[type-var]
            async for item in items:
                if isinstance(item, Delivery):
                    await self.take(item, client)
                else:
                    self.disk.told.append(item)
                    if isinstance(item, Opened):
                        self.remember(client.resume_state, 0, client.acked, item.at)

    def remember(self, state: ResumeState | None, base: int, acked: int, since: float) -> None:
        self.disk.resume, self.disk.base, self.disk.acked, self.disk.since = state, base, acked, since

    async def take(self, delivery: Delivery, client: Client) -> None:
        if delivery.client_id != self.session:
            self.session, self.base = delivery.client_id, 0
        fate = next(self.fates, "durable")
        if fate == "crash before":
            raise Crashed
        if fate == "not durable":
            return
        if fate == "slow":
            await asyncio.sleep(15.0)
        end = self.base + len(delivery.messages)
        for k, message in enumerate(delivery.messages):
            kept = self.disk.events.setdefault((delivery.client_id, self.base + k), message.data)
            assert kept == message.data, "the same id has other content"
        batch = client.acked if delivery.batch is None else delivery.batch
        self.remember(client.resume_state_after(delivery), end, batch, delivery.at)
        if fate == "unknown":
            return
        if fate == "crash after":
            raise Crashed
        self.base = end
        delivery.confirm()
        if fate == "close and keep":
            client.close(keep_session=True)


class World:
    """A server, a disk, and one process after the other that records from the one to the other."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.disk = Disk()
        self.rng = random.Random(schedule.seed)
        self.faults, self.fates = iter(schedule.faults), iter(schedule.fates)
        self.server = Server(
            ack=schedule.ack, events_first=schedule.events_first, on_acknowledged=self.acknowledged
        )
        self.client: Client | None = None
        self.done = False

    def acknowledged(self, number: int) -> None:
        assert number in self.disk.events.values(), f"event {number} was acknowledged and is not durable"

    async def play(self) -> None:
        processes = asyncio.create_task(self.run_processes())
        for pause in self.schedule.pauses:
            await self.pass_time(pause, processes)
            self.server.publish()
        await self.pass_time(3000.0, processes)
        for _ in self.schedule.fates:
            self.server.publish()
            await self.pass_time(100.0, processes)
        assert next(self.faults, None) is None, "faults are left, so recovery cannot be judged"
        assert next(self.fates, None) is None, "fates are left, so recovery cannot be judged"
        self.server.publish()
        await self.pass_time(100.0, processes)
        self.done = True
        assert self.client is not None
        self.client.close()
        await processes

    async def pass_time(self, seconds: float, processes: asyncio.Task[None]) -> None:
        await asyncio.wait((processes,), timeout=seconds)
        if processes.done():
            processes.result()  # raises what went wrong

    async def run_processes(self) -> None:
        while not self.done:
            try:
                await self.run_process()
            except Crashed:
                await asyncio.sleep(self.rng.choice((0.1, 1.0, 15.0)))

    async def run_process(self) -> None:
        disk = self.disk
        resume = disk.resume if self.schedule.resumes else None
        network = Network(self.server, self.faults, self.rng)
        self.client = client = Client(
            network, [CHANNEL], rng=self.rng, wall=wall, resume=resume, acked=disk.acked
        )
        recorder = Recorder(disk, self.fates)
        if resume is not None:
            disk.resume = replace(resume, idle=False)
        else:
            recorder.session, recorder.base = "", 0
            disk.crashes.append(disk.since)
        await recorder.run(client)
        disk.resume, disk.acked, disk.base = client.resume_state, client.acked, recorder.base


async def play(schedule: Schedule) -> tuple[Server, Disk]:
    world = World(schedule)
    await world.play()
    return world.server, world.disk


def gaps(disk: Disk) -> list[tuple[float, float]]:
    """The spans in which the record may be incomplete, from what was told."""
    spans = []
    since: float | None = -float("inf")  # before the first opening
    for item in disk.told:
        match item:
            case Lost() | PossibleGap():
                begins = -float("inf") if item.since is None else item.since
                since = begins if since is None else min(since, begins)
            case Opened() | Resumed() if since is not None:
                spans.append((since, item.at))
                since = None
            case Stopped(since=end) if not item.kept:
                since = end if since is None else since
    spans.append((float("inf") if since is None else since, float("inf")))
    return spans


def check(schedule: Schedule) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        server, disk = runner.run(play(schedule))
    recorded = list(disk.events.values())
    assert recorded == sorted(set(recorded)), "an event was recorded twice or out of order"
    spans = gaps(disk)
    openings = [item.at for item in disk.told if isinstance(item, Opened)]
    for since in disk.crashes:  # the recorder knows itself that it started afresh, and since when
        begins = -float("inf") if since is None else since
        spans.append((begins, min((at for at in openings if at > begins), default=float("inf"))))
    for number, at in server.published:
        if number not in disk.events.values():
            assert any(begins <= at <= ends for begins, ends in spans), f"event {number} is missing, untold"
    assert server.published[-1][0] in recorded, "recording did not recover"


@given(schedules)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_lost_untold_nor_recorded_twice(schedule: Schedule) -> None:
    check(schedule)


@pytest.mark.long
@given(schedules)
@settings(max_examples=4000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_lost_untold_nor_recorded_twice_in_many_schedules(schedule: Schedule) -> None:
    check(schedule)


def test_without_faults_everything_after_the_opening_is_recorded() -> None:
    for ack in (True, False):
        schedule = Schedule(ack, True, True, [], [], [1.0] * 20, 1)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            server, disk = runner.run(play(schedule))
        assert list(disk.events.values()) == [number for number, _ in server.published]
