"""What a simulated GWS can be told to be, in one place.

The reference leaves several facts of a live server open (document `gws-voice-api`, the facts marked assumed);
each of them is a switch here, so that a client can be shown both answers. Everything may be changed while
the simulator runs and holds from the next request on.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["8.5.0", "8.5.2"]
"""The server generation: in 8.5.0 a call's `id` is its connId, participants are strings, there are no
metrics; in 8.5.2 `id` is the callUuid and participants are objects."""


@dataclass(kw_only=True)
class Options:
    """The switches of a simulator, all with a default.

    - `seed`: of every random choice; the same seed gives the same ids, devices and scenario.
    - `host`, `port`: where to listen; port 0 takes a free one.
    - `agent_count`, `first_agent`: how many agents there are, and the number of the first; user name =
      number, password = `secret-<number>`.
    - `csrf`: demand the CSRF token on every POST, REST and CometD.
    - `ack`: offer the acknowledgement extension; `ack_as_object`: in the form of CometD 3.1 and later.
    - `events_first`: events stand before the connect reply in a response, else after it.
    - `deliver_on_connect_only`: without `ack`, keep events for connect responses (`metaConnectDeliverOnly`).
    - `timeout_ms`, `interval_ms`, `max_interval_ms`: CometD's settings of these names; times in milliseconds.
    - `multi_session_interval_ms`: the polling interval advised to a second session of one browser.
    - `form`: the server generation; `metrics`: whether 8.5.2 notifications carry `metrics`.
    - `answer_after_s`: seconds after which the destination of a transfer, a conference or a dialled call
      answers by itself; None lets it ring until it is answered on purpose.
    - `attached_data_first`: an `AttachedDataChanged` precedes the Released of a transfer with userData.
    - `errors_with_200`: refusals come as HTTP 200 with their statusCode, instead of a 4xx or 5xx.
    - `speed`: how many simulated seconds a call's `duration` counts per real second.
    """

    seed: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    agent_count: int = 10
    first_agent: int = 15000
    csrf: bool = False
    ack: bool = True
    ack_as_object: bool = False
    events_first: bool = True
    deliver_on_connect_only: bool = False
    timeout_ms: int = 20_000
    interval_ms: int = 0
    max_interval_ms: int = 10_000
    multi_session_interval_ms: int = 2_000
    form: Form = "8.5.2"
    metrics: bool = True
    answer_after_s: float | None = 0.02
    attached_data_first: bool = False
    errors_with_200: bool = False
    speed: float = 1.0
