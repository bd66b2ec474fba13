"""Faults on demand: rules that say what goes wrong, where, how often, and count how often it really did.

A fault waits in a list; the place where it can strike asks for it (`Faults.take`). The first that matches
strikes. Three places exist: an operation on a call (`COMMAND_KINDS`), a notification on its way into a
session's queue (`NOTIFICATION_KINDS`), and a CometD request or its response (`COMETD_KINDS`).
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

from service.simulator.messages import ErrorShape

CommandKind = Literal[
    "late_answer",  # executed and notified at once, the answer comes `seconds` later
    "drop_before_execution",  # the connection closes, nothing is done
    "drop_after_execution",  # done, and notified, and the connection closes without an answer
    "http_500",  # HTTP 500 with statusCode 4 and `text`; `executed` says whether it was done
    "http_502",  # HTTP 502 with HTML, as a load balancer answers; `executed`
    "no_status_code",  # HTTP 200 with {}; `executed`
    "silence",  # 200/0, nothing is done and nothing is told
    "error_notification",  # 200/0, nothing is done, then an error notification in shape `shape`
    "reject",  # refused with `status_code` and `text`
    "notification_first",  # the notifications are on their way `seconds` before the answer
    "recall",  # done, but the destination does not answer and the call rings at the agent again
]
NotificationKind = Literal[
    "duplicate_notification",  # queued twice
    "reorder_notification",  # held back until after the session's next message
    "lose_notification",  # never queued
]
CometdKind = Literal[
    "lose_request",  # the connection closes before the request is looked at
    "kill_session",  # the session is gone: 402
    "lose_response",  # processed, and the connection closes before the response
    "cut_response",  # the connection closes within the response
    "close_after_response",  # the connection closes after a whole response
    "delay_response",  # the response comes `seconds` late
    "garble_response",  # the response is broken JSON
    "http_error",  # `http_status` with HTML instead of the response
    "advice",  # the reply advises `reconnect` and `interval_ms`; handshake and none end the session
    "server_disconnect",  # an unasked /meta/disconnect stands in the response; the session ends
    "duplicate_events",  # every event stands twice in the response
    "reverse_events",  # the events of the response stand in reverse order
]
Kind = CommandKind | NotificationKind | CometdKind

COMMAND_KINDS: frozenset[str] = frozenset(get_args(CommandKind))
NOTIFICATION_KINDS: frozenset[str] = frozenset(get_args(NotificationKind))
COMETD_KINDS: frozenset[str] = frozenset(get_args(CometdKind))
COMETD_REQUEST_KINDS: frozenset[str] = frozenset({"lose_request", "kill_session"})
COMETD_RESPONSE_KINDS: frozenset[str] = COMETD_KINDS - COMETD_REQUEST_KINDS


@dataclass(slots=True, kw_only=True)
class Fault:
    """A rule: what goes wrong, and where it strikes.

    - `operation`: the GWS operation (`SingleStepTransfer`, also the default of command faults); for CometD
      `handshake`, `connect`, `subscribe`, `unsubscribe`, `disconnect` (default `connect`); for a
      notification the call's state (default any).
    - `agent`, `call`: an agent's number, a call's id; None for any.
    - `with_events`: only a CometD response that carries events.
    - `after`: so many matches pass unharmed first; then it strikes `times` times (None: for ever), each
      time with `probability`.

    What it does beyond its kind: see the kinds. `struck` counts the strikes.
    """

    kind: Kind
    operation: str | None = None
    agent: str | None = None
    call: str | None = None
    with_events: bool = False
    after: int = 0
    times: int | None = 1
    probability: float = 1.0
    seconds: float = 0.2
    executed: bool = False
    status_code: int = 2
    http_status: int = 503
    error_code: int = 71
    text: str = "Invalid Called Dn"
    shape: ErrorShape = "device_message"
    reconnect: Literal["retry", "handshake", "none"] = "handshake"
    interval_ms: int = 0
    struck: int = 0

    def __post_init__(self) -> None:
        if self.kind not in COMMAND_KINDS | NOTIFICATION_KINDS | COMETD_KINDS:
            raise ValueError(f"kind: there is no fault '{self.kind}'; see CommandKind and its neighbours")
        if self.shape not in get_args(ErrorShape):
            raise ValueError(f"shape: '{self.shape}' is not one of {', '.join(get_args(ErrorShape))}")
        if self.operation is None and self.kind in COMMAND_KINDS:
            self.operation = "SingleStepTransfer"
        if self.operation is None and self.kind in COMETD_KINDS:
            self.operation = "connect"


@dataclass
class Faults:
    """The faults in waiting; `struck` counts the strikes of every kind, the commanded ones included."""

    rng: random.Random
    waiting: list[Fault] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)

    def add(self, kind: Kind, **rule: object) -> Fault:
        """Add a rule, given by the fields of `Fault`.

        Raises TypeError for a field that does not exist, ValueError for a kind or shape that does not.
        """
        fault = Fault(kind=kind, **rule)  # type: ignore[arg-type]  # the fields are Fault's own
        self.waiting.append(fault)
        return fault

    def clear(self) -> None:
        self.waiting.clear()

    def take(
        self,
        kinds: frozenset[str],
        operation: str,
        agent: str,
        call: str | None = None,
        *,
        events: bool = False,
    ) -> Fault | None:
        """Give the fault that strikes here and count it, or None."""
        for fault in self.waiting:
            if (
                fault.kind not in kinds
                or fault.operation not in (None, operation)
                or fault.agent not in (None, agent)
                or fault.call not in (None, call)
                or (fault.with_events and not events)
                or (fault.times is not None and fault.struck >= fault.times)
            ):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            if fault.probability < 1 and self.rng.random() >= fault.probability:
                continue
            fault.struck += 1
            self.struck[fault.kind] += 1
            return fault
        return None
