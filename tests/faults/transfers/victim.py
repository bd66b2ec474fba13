"""Processes that die, or are stopped, at a named point of a transfer.

Run as a program it reads one round a line (JSON) from standard input, forks a process for it, and writes the
child's pid and, when it has ended, how. Nothing in the product knows of this: the points are reached by
subclassing what the product is made of.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.engine import make_url
from transfer_site import DYING

from service.cometd import Cookies, shared_http
from service.gws import Answer, GwsClient, client
from service.log import open_log
from service.postgres import open_pools
from service.transfers import Settle, Settler, TransferHandler, build_body, parse_command
from service.transfers.decider import CallTransfers, Command, Dispatch, Request, TakeAnswer
from service.transfers.dispatcher import Dispatcher
from service.transfers.journal import Extra, Journal

POINTS = (
    "before the intent is durable",
    "after the intent, before connecting",
    "connected, before the first byte",
    "after the last byte",
    "after the answer, before it is durable",
    "after the answer is durable, before the reply",
    "while settling",
)
STOP = "stopped before the last check"
point = ""


def die(at: str) -> None:
    if at == point:
        os.kill(os.getpid(), signal.SIGKILL)


class DyingJournal(Journal):
    async def apply(self, state: CallTransfers, command: Command, *extras: Extra) -> CallTransfers:
        sends = isinstance(command, Request | Dispatch)
        if sends:
            die(POINTS[0])
        if isinstance(command, Settle):
            die(POINTS[6])
        after = await super().apply(state, command, *extras)
        if sends:
            die(POINTS[1])
        if isinstance(command, TakeAnswer):
            die(POINTS[5])
        return after


class DyingBody(client.CheckedBody):
    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await super().write_with_length(writer, content_length)
        die(POINTS[3])


class DyingClient(GwsClient):
    async def command_call(
        self, call_id: str, body: bytes, *, may_send: Callable[[], Awaitable[bool]]
    ) -> Answer:
        async def check() -> bool:
            if point == STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            allowed = await may_send()
            die(POINTS[2])
            return allowed

        answer = await super().command_call(call_id, body, may_send=check)
        die(POINTS[4])
        return answer


async def transfer(turn: dict[str, Any]) -> None:
    """One transfer in a process of its own."""
    # A request that times out while its process is stopped is not sent either: there only the claim counts.
    timeout_s = 60.0 if point == STOP else DYING.answer_s
    async with (
        open_pools(make_url(turn["database"]), max_size=2) as database,
        open_log(database, max_payload_bytes=1 << 20) as log,
        shared_http() as http,
    ):
        clients = {
            "15000": DyingClient(
                http, turn["gws"], "15000", "secret-15000", cookies=Cookies(), timeout_s=timeout_s
            )
        }
        handler = TransferHandler(database, log, clients, DYING)
        handler.journal = DyingJournal(database, log, DYING)
        handler.dispatcher = Dispatcher(handler.journal, clients)
        body = build_body(turn["to"], None, turn["data"])
        command = parse_command(
            turn["call"], body, agent="15000", caller="15000", door="gws", key=turn["key"]
        )
        outcome = await handler.transfer(command)
        if point == POINTS[6]:
            await Settler(handler).settle(turn["call"], outcome.transfer.id, due=True)


def main() -> None:
    global point  # noqa: PLW0603 the forked process is of one round
    client.CheckedBody = DyingBody  # type: ignore[misc]
    for line in sys.stdin:
        turn = json.loads(line)
        pid = os.fork()
        if pid == 0:
            point = turn["point"]
            try:
                asyncio.run(transfer(turn))
            finally:
                os._exit(0)
        tell(pid=pid)
        _, status = os.waitpid(pid, 0)
        tell(killed=os.WIFSIGNALED(status))


def tell(**fact: object) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
