"""Pure folds from events to rows, and the one engine that runs and rebuilds them."""

from service.projections.call_state import CallState
from service.projections.engine import Engine
from service.projections.projection import Projection
from service.projections.queries import Queries, TransferFilter, calls_of
from service.projections.transfer_audit import TransferAudit

__all__ = [
    "CallState",
    "Engine",
    "Projection",
    "Queries",
    "TransferAudit",
    "TransferFilter",
    "calls_of",
    "catalogue",
]


def catalogue() -> list[Projection]:
    """Every projection there is. A new one is entered here."""
    return [CallState(), TransferAudit()]
