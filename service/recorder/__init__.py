"""Keeps agents' CometD sessions alive and writes every delivery, and every gap, to the log."""

from service.recorder.recorder import Access, Recorder
from service.recorder.session import AgentRecorder, Status

__all__ = ["Access", "AgentRecorder", "Recorder", "Status"]
