"""After an upgrade: what comes on one connection goes to the other, until either ends."""

from __future__ import annotations

from service.tap.bodies import cut
from service.tap.exchange import FrameInterest
from service.tap.frames import Messages, Taken, messages_of
from service.tap.heads import ResponseHead
from service.tap.wire import Wire


async def relay(client: Wire, server: Wire) -> None:
    """Pass bytes both ways."""
    while True:
        moved = pipe(client, server) | pipe(server, client)
        if not moved:
            if client.ended or server.ended:
                return
            await client.bell.wait()


async def relay_frames(client: Wire, server: Wire, response: ResponseHead, interest: FrameInterest) -> None:
    """Pass WebSocket frames both ways; the server's messages when `interest` is done with them."""
    up, down = (messages_of(response, from_client=from_client) for from_client in (True, False))
    held = bytearray()  # frames of a message that is not recorded yet
    try:
        while True:
            sent = None if server.full else take_frame(client, up)
            if sent is not None:
                if sent.message is not None:
                    interest.sent(sent.message)
                server.write(sent.raw)
            received = None if client.full else take_frame(server, down)
            if received is not None and received.control:
                client.write(received.raw)
            elif received is not None:
                held += received.raw
                if received.message is not None:
                    await interest.received(received.message)
                    client.write(bytes(held))
                    held.clear()
            if sent is None and received is None:
                if client.ended or server.ended:
                    return
                await client.bell.wait()
    finally:
        await interest.closed()


def pipe(source: Wire, sink: Wire) -> bool:
    """Pass on what has come; whether that was anything."""
    if sink.full or not source.buffer:
        return False
    sink.write(cut(source.buffer, len(source.buffer)))
    source.taken()
    return True


def take_frame(wire: Wire, messages: Messages) -> Taken | None:
    """Cut a whole frame from what has come."""
    taken = messages.take(wire.buffer)
    if taken is None:
        wire.want_more()
    else:
        wire.taken()
    return taken
