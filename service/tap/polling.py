"""The interest in CometD: answers to long polls, and the messages of a WebSocket."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from service.cometd import Message
from service.errors import ProtocolViolation
from service.tap.exchange import Exchange
from service.tap.reading import client_of, read_messages
from service.tap.recording import Recording
from service.tap.visit import MOST_HELD
from service.tap.who import Visitor, Who

LARGEST_REQUEST = 1 << 20  # bytes
MOST_UNANSWERED = 100  # requests of a WebSocket that are remembered


class Poll:
    """One request to CometD: its answer is given to the client when it is recorded."""

    keep_request = LARGEST_REQUEST
    keep_answer = MOST_HELD
    holds = True

    def __init__(self, recording: Recording, who: Who, visitor: Visitor) -> None:
        self._recording = recording
        self._who = who
        self._visitor = visitor
        self._asked: tuple[Message, ...] = ()
        self._asked_at = datetime.now(UTC)  # nothing of the request has been passed on yet

    def asked(self, exchange: Exchange) -> None:
        self._asked = messages_of(exchange.asked.kept or b"", exchange.request.text(b"content-encoding"))
        self._recording.begun(self._asked)

    async def ended(self, exchange: Exchange) -> None:
        asked = self._asked
        self._recording.over(asked)
        response, answer = exchange.response, exchange.answer
        body = answer.kept if answer is not None and answer.done else None
        if response is None or response.status != 200 or body is None:
            self._recording.failed(asked)
            return
        self._who.let_in(exchange.request)
        try:
            answered = read_messages(body, response.text(b"content-encoding"))
        except ProtocolViolation as error:
            await self._recording.unreadable(body, str(error), asked, self._visitor)
            return
        await self._recording.take(asked, answered, self._visitor, self._asked_at)


class Asked(NamedTuple):
    """A message of a client, and when it was passed on."""

    message: Message
    at: datetime


class Socket:
    """A WebSocket that carries CometD: requests and answers belong together by their ids."""

    def __init__(self, recording: Recording, visitor: Visitor) -> None:
        self._recording = recording
        self._visitor = visitor
        self._unanswered: dict[str | None, Asked] = {}
        self._client_id: str | None = None
        self._begun_at = datetime.now(UTC)

    def sent(self, message: bytes) -> None:
        asked = messages_of(message)
        self._recording.begun(asked)
        now = datetime.now(UTC)
        for one in asked:
            self._unanswered[one.id] = Asked(one, now)
            if len(self._unanswered) > MOST_UNANSWERED:
                self._recording.over([self._unanswered.pop(next(iter(self._unanswered))).message])

    async def received(self, message: bytes) -> None:
        try:
            answered = read_messages(message, None)
        except ProtocolViolation as error:
            await self._recording.unreadable(message, str(error), self._asked([]), self._visitor)
            return
        ended = [
            self._unanswered.pop(one.id)
            for one in answered
            if "successful" in one.fields and one.id in self._unanswered
        ]
        asked = [one.message for one in ended]
        asked_at = min((one.at for one in ended), default=self._begun_at)
        self._recording.over(asked)
        self._client_id = client_of(answered) or client_of(asked) or self._client_id
        await self._recording.take(self._asked(asked), answered, self._visitor, asked_at)

    async def closed(self) -> None:
        asked = [one.message for one in self._unanswered.values()]
        self._recording.over(asked)
        self._recording.failed(self._asked(asked))

    def _asked(self, messages: list[Message]) -> list[Message]:
        """`messages`, so that they name the session even where nothing was asked."""
        named = Message(b"", {} if self._client_id is None else {"clientId": self._client_id})
        return [*messages, named]


def messages_of(body: bytes, coding: str | None = None) -> tuple[Message, ...]:
    """What a client asks; nothing of it, if that cannot be read."""
    try:
        return read_messages(body, coding)
    except ProtocolViolation:
        return ()
