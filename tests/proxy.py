"""A TCP proxy that harms what passes through, by a seeded choice, and counts what it did."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, Self

Harm = Literal["latency", "reset", "cut", "drip"]
CHUNK = 1 << 16
LONGEST_LATENCY_S = 0.05
DRIP_S = 0.1  # a dripped chunk takes so long


@dataclass
class FaultProxy:
    """Listens on loopback and passes everything to `port`.

    `harms`: how likely each harm is to strike a chunk, in either direction:

    - latency: the chunk is held back a while;
    - reset: both connections are reset before the chunk is passed on;
    - cut: part of the chunk is passed on, then both connections are reset;
    - drip: the chunk arrives in small pieces.

    While `down`, connections are reset as soon as they are made.
    """

    port: int
    rng: random.Random
    harms: dict[Harm, float] = field(default_factory=dict)
    down: bool = False
    struck: Counter[str] = field(default_factory=Counter)

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop()

    def drop(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            self.struck["down"] += 1
            reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            reset(writer)
            return
        both = {writer, up_writer}
        self._writers |= both
        try:
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer)),
                asyncio.create_task(self._pump(up_reader, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
        finally:
            self._writers -= both
            for one in both:
                reset(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                if not await self._pass_on(chunk, writer):
                    return
        except ConnectionError:
            return

    async def _pass_on(self, chunk: bytes, writer: asyncio.StreamWriter) -> bool:
        harm = self._choose()
        if harm:
            self.struck[harm] += 1
        if harm == "reset":
            return False
        if harm == "cut":
            writer.write(chunk[: self.rng.randrange(len(chunk))])
            await writer.drain()
            return False
        if harm == "latency":
            await asyncio.sleep(self.rng.uniform(0, LONGEST_LATENCY_S))
        if harm == "drip":
            step = max(1, len(chunk) // 20)
            for start in range(0, len(chunk), step):
                writer.write(chunk[start : start + step])
                await asyncio.sleep(DRIP_S / 20)
        else:
            writer.write(chunk)
        await writer.drain()
        return True

    def _choose(self) -> Harm | None:
        drawn = self.rng.random()
        for harm, likely in self.harms.items():
            drawn -= likely
            if drawn < 0:
                return harm
        return None


def reset(writer: asyncio.StreamWriter) -> None:
    """Close at once with RST, as a machine does that has forgotten the connection."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
