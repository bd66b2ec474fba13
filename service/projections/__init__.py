"""Pure folds from events to rows, and the one engine that runs and rebuilds them."""

from service.projections.call_state import CallState
from service.projections.catalogue import catalogue
from service.projections.compare import Difference
from service.projections.coverage import Coverage
from service.projections.engine import Engine
from service.projections.projection import Projection, storable
from service.projections.queries import Queries, calls_of
from service.projections.rebuild import Rebuilder, Report
from service.projections.story import Step, call_story, difference_between, in_tempo
from service.projections.transfer_audit import TransferAudit
from service.projections.transfer_facts import TransferFacts

__all__ = [
    "CallState",
    "Coverage",
    "Difference",
    "Engine",
    "Projection",
    "Queries",
    "Rebuilder",
    "Report",
    "Step",
    "TransferAudit",
    "TransferFacts",
    "call_story",
    "calls_of",
    "catalogue",
    "difference_between",
    "in_tempo",
    "storable",
]
