"""A share of a rebuild in a process of its own: both ends of the pipe.

The program (`python -m service.projections.worker`) reads its `Task` from standard input, says on standard
output how far it is, and ends when its standard input does, that is when the process that started it is gone.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from os import _exit

import msgspec

from service.errors import DatabaseError
from service.log import EventLog
from service.postgres import open_pools, parse_url
from service.projections.building import Task, build, find_projections


async def run_process(task: Task, passed: Callable[[int], None]) -> None:
    """Do `task` in a process of its own; `passed` is told each position reached.

    Raises:
        DatabaseError: the process failed; what it has done is kept, and a rebuild goes on from there.

    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.projections.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(msgspec.json.encode(task) + b"\n")  # stays open: its end would end the process
        await process.stdin.drain()
        complaints = asyncio.create_task(last_line(process.stderr))
        async for line in process.stdout:
            passed(int(line))
        if status := await process.wait():
            fault = await complaints or f"exit status {status}"
            raise DatabaseError(
                f"a process of the rebuild ended ({fault}). Run it again: it goes on from there"
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()


async def last_line(stream: asyncio.StreamReader) -> str:
    last = b""
    async for line in stream:
        last = line.strip() or last
    return last.decode(errors="replace")


async def work(task: Task) -> None:
    async with open_pools(parse_url(task.url), max_size=2) as database:
        log = EventLog(database, max_payload_bytes=0)  # only read
        await build(database, log, task, find_projections(task.what), say)


def say(position: int) -> None:
    sys.stdout.write(f"{position}\n")
    sys.stdout.flush()


def end_with_input() -> None:
    """End this process at once when standard input does."""
    sys.stdin.read()
    _exit(1)


def main() -> None:
    """Do the task in the first line of standard input."""
    task = msgspec.json.decode(sys.stdin.readline(), type=Task)
    threading.Thread(target=end_with_input, daemon=True).start()
    with suppress(ModuleNotFoundError):  # uvloop is not made for Windows
        import uvloop

        uvloop.run(work(task))
        return
    asyncio.run(work(task))


if __name__ == "__main__":
    main()
