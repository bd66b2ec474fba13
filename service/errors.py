"""Every error that calltrail raises, in one tree.

    CalltrailError
    ├── BadInput                     a field is wrong: names the field and the remedy
    │   ├── BadConfig                a setting or an agents' file
    │   ├── BadEvent                 an event that the log does not take
    │   └── BadCommand               a transfer command that cannot be carried out as it stands
    ├── NotAuthenticated             the caller is not one of the configured agents
    ├── NotFound                     no such call, transfer or position
    ├── Conflict                     right in itself, but not now
    │   ├── AppendConflict           a condition on a stream does not hold
    │   ├── EventIdReused            the id is in the log with other content
    │   ├── KeyReused                the Idempotency-Key was used for another request
    │   ├── KeyBusy                  the first request with this key is still running
    │   ├── CallBusy                 another transfer of the same call is live
    │   ├── TransferSettled          a person's decision comes too late, or too early
    │   ├── UnderLegalHold           a redaction that a hold forbids
    │   └── TransferUnderWay         a redaction while a transfer of the call is not concluded
    ├── LogError                     see `service.log`
    │   ├── NotEnoughTraffic         too few payloads to train a dictionary on
    │   └── Tampered                 the log is not what its tree or a signed checkpoint says
    ├── CheckFailed                  what was to be checked is not as it should be
    ├── DatabaseError
    │   ├── DatabaseUnavailable      certainly not done; may be tried again
    │   ├── OutcomeUnknown           the answer was lost: may or may not be committed
    │   └── SchemaMismatch           the schema is not at this program's revision
    ├── CometdError                  see `service.cometd`
    │   ├── TransportFailed          no usable answer (network, time-out, HTTP status)
    │   └── ProtocolViolation        an answer that is not a Bayeux message or an array of them
    ├── GwsError
    │   ├── NotSent                  certainly nothing reached GWS
    │   ├── AnswerLost               something may have reached GWS; no answer is known
    │   └── GwsRefused               GWS answered with an error
    ├── TapError                     see `service.tap`
    │   ├── BadHttp                  a message that is not passed on: names status and problem
    │   └── PeerGone                 a connection ended in the middle of something
    └── TlogError                    see `service.tlog`
        ├── Malformed                not the format it claims to be: names the part
        ├── OutsideTree              the tree has no such leaf or size
        ├── ProofRefused             well-formed, but does not prove the claim
        └── SignatureRefused         no trusted key signed, or a trusted key's signature is wrong

The sentence a person reads is the exception's text. Faces translate classes, never texts: the mapping to
HTTP stands in `service/api/problems.py`, the one to exit codes in `service/cli/`.
"""

from __future__ import annotations


class CalltrailError(Exception):
    """Root of all errors raised on purpose."""


class BadInput(CalltrailError):
    """A value from outside is not acceptable.

    `field` is the path of the value as its author wrote it (``destination.phoneNumber``), `problem` says what
    is wrong and `remedy` what to write instead.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}. {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class BadConfig(BadInput):
    """A setting or a line of the agents' file is wrong."""


class BadEvent(BadInput):
    """The log does not take this event. Nothing was written."""


class BadCommand(BadInput):
    """The transfer command cannot be carried out as it stands. Nothing was dispatched."""


class NotAuthenticated(CalltrailError):
    """The request's credentials are not those of a configured agent."""


class NotFound(CalltrailError):
    """There is no such call, transfer, projection or position."""


class Conflict(CalltrailError):
    """The request is right in itself but does not fit the present state."""


class AppendConflict(Conflict):
    """An event stands in the stream where the caller expected none. Nothing was written."""

    def __init__(self, stream: str, expected_after: int, found: int) -> None:
        super().__init__(
            f"stream {stream} has an event at position {found}, after the expected {expected_after}. "
            "Read the stream again, decide again, append again"
        )
        self.stream = stream
        self.expected_after = expected_after
        self.found = found


class EventIdReused(Conflict):
    """The event id is in the log already, with other content. Nothing was written."""

    def __init__(self, event_id: object, position: int) -> None:
        super().__init__(f"event id {event_id} was used at position {position} for other content")
        self.event_id = event_id
        self.position = position


class KeyReused(Conflict):
    """The Idempotency-Key was used before, for a different request."""

    def __init__(self, first: str, now: str) -> None:
        super().__init__(
            f"this Idempotency-Key belongs to a request with fingerprint {first}; this one has {now}. "
            "Use a new key for a new request"
        )
        self.first = first
        self.now = now


class KeyBusy(Conflict):
    """The first request with this Idempotency-Key is still running."""

    def __init__(self, transfer_id: object) -> None:
        super().__init__(f"transfer {transfer_id} with this key is still running. Ask again shortly")
        self.transfer_id = transfer_id


class CallBusy(Conflict):
    """Another transfer of the same call is live."""

    def __init__(self, call_id: str, transfer_id: object) -> None:
        super().__init__(
            f"call {call_id} has a live transfer {transfer_id} to another destination. "
            "Wait for its outcome, or use an Idempotency-Key if both are meant"
        )
        self.call_id = call_id
        self.transfer_id = transfer_id


class TransferSettled(Conflict):
    """The transfer is not open to this decision."""

    def __init__(self, transfer_id: object, state: str) -> None:
        super().__init__(
            f"transfer {transfer_id} is {state}. Only one that is accepted or in doubt can be settled, "
            "and only one that is in doubt or not sent yet abandoned"
        )
        self.transfer_id = transfer_id
        self.state = state


class UnderLegalHold(Conflict):
    """A legal hold covers what was to be redacted. Nothing was changed."""

    def __init__(self, call_id: str, case: str, who: str, since: str, hold_id: object) -> None:
        super().__init__(
            f"call {call_id} is under legal hold: case {case}, placed by {who} on {since} (hold {hold_id}). "
            "It can be redacted when the hold is released"
        )
        self.case = case
        self.hold_id = hold_id


class TransferUnderWay(Conflict):
    """A transfer of the call is not concluded yet, and its request is still needed."""

    def __init__(self, call_id: str, transfer_id: object, state: str) -> None:
        super().__init__(
            f"transfer {transfer_id} of call {call_id} is {state}. Redact when it is concluded: "
            "calltrail transfer settle decides one in doubt"
        )
        self.transfer_id = transfer_id


class LogError(CalltrailError):
    """The event log cannot do what was asked."""


class NotEnoughTraffic(LogError):
    """There are too few payloads in the log to train a dictionary on."""


class Tampered(LogError):
    """The log is not what its own tree, or a signed checkpoint, says it is. Run `calltrail verify`."""


class CheckFailed(CalltrailError):
    """A check was asked for, and the answer is no."""


class DatabaseError(CalltrailError):
    """Postgres could not do what was asked."""


class DatabaseUnavailable(DatabaseError):
    """Postgres could not be reached or broke off before the commit was sent: certainly nothing was done."""


class OutcomeUnknown(DatabaseError):
    """The connection was lost while a commit was under way: it may or may not be done.

    Appending the same events again, with the same ids, settles it.
    """


class SchemaMismatch(DatabaseError):
    """The database's schema is not at the revision that this program needs."""


class CometdError(CalltrailError):
    """A CometD session could not go on."""


class TransportFailed(CometdError):
    """No usable answer came: the network failed, the time ran out or the HTTP status was not 200.

    `status` and `body` are those of the HTTP answer, if there was one. `sent` is false only when it is
    certain that nothing of the request reached the server (name not found, connection refused, TLS
    refused).
    """

    def __init__(
        self, message: str, *, status: int | None = None, body: bytes = b"", sent: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.sent = sent


class ProtocolViolation(CometdError):
    """The answer is not a Bayeux message or an array of them: not UTF-8, not JSON, cut off or something else.

    `body` is the answer as it came, so that it can be kept as evidence.
    """

    def __init__(self, message: str, *, body: bytes) -> None:
        super().__init__(message)
        self.body = body


class GwsError(CalltrailError):
    """A REST request to GWS did not succeed."""


class NotSent(GwsError):
    """No connection could be made: certainly nothing reached GWS."""


class AnswerLost(GwsError):
    """The request, or part of it, may have reached GWS, and no answer of its own is known."""


class GwsRefused(GwsError):
    """GWS answered with an error of its own."""

    def __init__(self, status_code: int, message: str, http_status: int) -> None:
        super().__init__(f"GWS answered statusCode {status_code} (HTTP {http_status}): {message}")
        self.status_code = status_code
        self.message = message
        self.http_status = http_status


class TapError(CalltrailError):
    """The tap could not pass something on."""


class BadHttp(TapError):
    """A message is not HTTP/1.1 in one reading only, or is not for us. Nothing more of it is passed on.

    `status` is what its sender is answered with, where that is a client.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class PeerGone(TapError):
    """The client's or the server's connection ended in the middle of an exchange."""


class TlogError(CalltrailError):
    """Something of the transparency log could not be read, built or proved."""


class Malformed(TlogError):
    """Bytes or text are not in the format that they claim.

    `part` says which (``checkpoint, line 2``), `problem` what is wrong with it and what is expected.
    """

    def __init__(self, part: str, problem: str) -> None:
        super().__init__(f"{part}: {problem}")
        self.part = part
        self.problem = problem


class OutsideTree(TlogError):
    """A leaf or a tree size was asked for that the tree does not have."""


class ProofRefused(TlogError):
    """A proof is well-formed but does not prove what it is meant to: do not trust the claim."""


class SignatureRefused(TlogError):
    """No trusted key signed the note, or a trusted key's signature does not verify: do not trust the note."""
