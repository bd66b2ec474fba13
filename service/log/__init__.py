"""The event log: append, read, follow. It knows bytes and kinds, not calls."""

from service.log.event import Condition, NewEvent, Statement, StoredEvent
from service.log.ids import Producer
from service.log.store import EventLog, open_log, share_of

__all__ = [
    "Condition",
    "EventLog",
    "NewEvent",
    "Producer",
    "Statement",
    "StoredEvent",
    "open_log",
    "share_of",
]
