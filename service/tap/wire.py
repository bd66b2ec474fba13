"""Connections as buffers: what has come, whether more will come, whether more can be written.

A client is served by one task over two wires, its own and the one to the server. Whatever happens on either
rings one bell, and the task looks what there is to do: no task per direction, and nothing held but two
buffers, whose size is bounded by not reading on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

HIGH_WATER = 64 << 10  # bytes in a buffer from which no more is read


class Bell:
    """Wakes the one task that waits for it."""

    __slots__ = ("_rung", "_waiting")

    def __init__(self) -> None:
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self) -> None:
        """Wait until it has been rung since the last time."""
        if not self._rung:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        self._rung = False


class Wire(asyncio.Protocol):
    """One connection. `full`: no more should be written now. `ended`: no more will come."""

    def __init__(self, bell: Bell, made: Callable[[Wire], None] | None = None) -> None:
        self.bell = bell
        self.buffer = bytearray()
        self.ended = False
        self.closed = False
        self.full = False
        self._made = made
        self._paused = False
        self._transport: asyncio.Transport | None = None

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._made is not None:
            self._made(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self.bell.ring()

    def eof_received(self) -> bool:
        """The other side sends no more; what it still reads can be written (TLS has no such state)."""
        self.ended = True
        self.bell.ring()
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        self.ended = self.closed = True
        self.full = False
        self.bell.ring()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.bell.ring()

    # What the task does

    def taken(self) -> None:
        """Something was taken out of the buffer: read on, if there is room."""
        if self._paused and len(self.buffer) <= HIGH_WATER // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def want_more(self) -> None:
        """What has come does not suffice for a step, however much it is: read on."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.closed and data:
            self._transport.write(data)

    def close(self) -> None:
        """Close when what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def peer(self) -> str:
        """The other side's address, for the operator."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""
