"""A request, its answer, and who wants to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from service.tap.bodies import Body
from service.tap.heads import RequestHead, ResponseHead


@dataclass(slots=True)
class Exchange:
    """A request and, as far as it has come, its answer. The bodies hold what they were told to keep."""

    request: RequestHead
    asked: Body
    response: ResponseHead | None = None
    answer: Body | None = None


class Interest(Protocol):
    """What is to be known of an exchange.

    `keep_request`, `keep_answer`: how many bytes of each body to keep. `holds`: whether the answer is given
    to the client only when `ended` is done.
    """

    keep_request: int
    keep_answer: int
    holds: bool

    def asked(self, exchange: Exchange) -> None:
        """The whole request has been passed on. Not called where the answer came first."""
        ...

    async def ended(self, exchange: Exchange) -> None:
        """The exchange is over; with an answer that is not `done` it was broken off.

        Raises:
            BadHttp: the client is not to be given the answer.

        """
        ...


class FrameInterest(Protocol):
    """What is to be known of a WebSocket."""

    def sent(self, message: bytes) -> None:
        """The client says something; it is passed on at once."""
        ...

    async def received(self, message: bytes) -> None:
        """The server says something; the client is given it when this is done."""
        ...

    async def closed(self) -> None: ...
