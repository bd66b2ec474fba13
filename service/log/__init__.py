"""The event log: append, read, follow. It knows bytes and kinds, not calls."""

from service.log.event import Condition, NewEvent, Statement, StoredEvent, rfc3339
from service.log.ids import Producer
from service.log.store import EventLog, open_log

__all__ = [
    "Condition",
    "EventLog",
    "NewEvent",
    "Producer",
    "Statement",
    "StoredEvent",
    "open_log",
    "rfc3339",
]
