"""What the HTTP face needs of the rooms below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.config import Settings
from service.log import EventLog
from service.postgres import Database
from service.projections import Engine, Queries
from service.recorder import Access
from service.tap import Tap
from service.transfers import TransferHandler


@dataclass(frozen=True)
class Services:
    """The parts that a request may use. `accesses`: the agents of the moment, by user name."""

    settings: Settings
    accesses: Mapping[str, Access]
    database: Database
    log: EventLog
    handler: TransferHandler
    engine: Engine
    queries: Queries
    tap: Tap | None = None
