"""Every projection there is. A new one is entered here."""

from __future__ import annotations

from service.projections.call_state import CallState
from service.projections.coverage import Coverage
from service.projections.projection import Projection
from service.projections.transfer_audit import TransferAudit
from service.projections.transfer_facts import TransferFacts


def catalogue() -> list[Projection]:
    return [CallState(), TransferAudit(), Coverage(), TransferFacts()]
