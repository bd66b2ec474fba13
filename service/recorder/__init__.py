"""Keeps agents' CometD sessions alive and writes every delivery, and every gap, to the log."""

from service.recorder.access import Access, Accesses, Clients
from service.recorder.ownership import list_sessions
from service.recorder.recorder import Recorder
from service.recorder.session import AgentRecorder
from service.recorder.status import Status
from service.recorder.vault import Vault

__all__ = [
    "Access",
    "Accesses",
    "AgentRecorder",
    "Clients",
    "Recorder",
    "Status",
    "Vault",
    "list_sessions",
]
