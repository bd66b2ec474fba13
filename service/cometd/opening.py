"""How a session is opened: handshake, then subscription; until both are granted nothing is recorded."""

from __future__ import annotations

from collections.abc import Mapping

from service.cometd import advice as advices
from service.cometd.actions import Purpose, Send, State
from service.cometd.facts import Refused
from service.cometd.framing import Message
from service.cometd.moves import Moves
from service.cometd.replies import SERVER_TROUBLE, grants_of, negotiated, unfit
from service.cometd.requests import Request, hello, subscriptions


class Opening(Moves):
    """The rules for the answers to a handshake and to a subscribe."""

    __slots__ = ()

    def _handshake(self) -> Send:
        self.state = State.HANDSHAKING
        self.client_id = None
        self.advice = advices.DEFAULT
        self._news.new_session()
        return self._send(Purpose.HANDSHAKE, hello(self.connection_type), self._timing.reply)

    def _subscribe(self) -> Send:
        return self._send(Purpose.SUBSCRIBE, subscriptions(self.channels), self._timing.reply)

    def _shaken(self, request: Request, reply: Message, events: tuple[Message, ...]) -> None:
        if not reply.successful:
            self._handshake_denied(reply)
        elif reason := unfit(reply, self.connection_type):
            self._refuse(reason)
        else:
            self.client_id = str(reply.fields["clientId"])
            self.acknowledged, first_batch = negotiated(reply)
            self.acked = 0 if events else first_batch or 0
            self._deliver(events, first_batch, request)
            self.state = State.SUBSCRIBING
            if not self.channels:
                self._open(())

    def _handshake_denied(self, reply: Message) -> None:
        code, _ = reply.error
        said = f"handshake refused: {self._said(reply)}"
        if self.advice.gives_up:
            self._stop(f"{said}; the server forbids another try")
        elif code is not None and code >= SERVER_TROUBLE:
            self._try_again(said)
        else:
            self._refuse(said, code=code)

    def _subscribed(
        self, request: Request, replies: Mapping[str, Message], events: tuple[Message, ...]
    ) -> None:
        granted, denied, lost, troubled = grants_of(self.channels, request, replies)
        if granted and not (self.advice.ends_session or lost or troubled):
            for channel, reply in denied:
                said = self._said(reply)
                self._news.tell(Refused(said, reply.error[0], None, channel, None, self._wall))
            self._open(granted)
            self._deliver(events, None, request)
            return
        self._deliver(events, None, request)
        if self.advice.ends_session or lost:
            self._lose(self._said(lost) if lost else f"advice: reconnect {self.advice.reconnect}")
        elif troubled:
            self._try_again(self._said(troubled))
        else:
            channel, reply = denied[0]
            self._refuse(self._said(reply), code=reply.error[0], channel=channel)
