"""Structured log lines on standard error: a time, a level, a sentence, and fields as key=value."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """``2026-11-24T09:30:00.000Z INFO service.recorder session agent=15000 status=open``."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        parts = [at, record.levelname, record.name, record.getMessage()]
        for name, value in vars(record).items():
            if name not in _STANDARD:
                text = str(value)
                parts.append(f"{name}={text if text.isalnum() else json.dumps(text, ensure_ascii=False)}")
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str) -> None:
    """Send every logger's lines to standard error; libraries only from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("service").setLevel(level)
