from __future__ import annotations

from projection_reference import fold_all, recorded

from service.events import (
    TransferDispatched,
    TransferFailed,
    TransferInDoubt,
    TransferNotSent,
    TransferRequested,
    TransferStep,
)
from service.log import Producer
from service.projections import TransferAudit

TRANSFER = Producer.new().key
WARNED = "the leg's capabilities do not include SingleStepTransfer"


def test_each_step_keeps_its_cause_whatever_follows() -> None:
    life: list[TransferStep] = [
        TransferRequested(TRANSFER, "c", "15000", "15000", "gws", "15002", "f", warnings=(WARNED,)),
        TransferDispatched(TRANSFER),
        TransferNotSent(TRANSFER, "refused"),
        TransferDispatched(TRANSFER, attempt=2),
        TransferInDoubt(TRANSFER, "the connection broke"),
        TransferFailed(TRANSFER, "a person's decision", (), settled_by="WillardC", why="he says so"),
    ]
    history = [recorded(position, event, b"{}", "transfer-c") for position, event in enumerate(life)]
    [row] = fold_all(TransferAudit(), history).values()
    told = [(step["step"], step.get("why"), step.get("by")) for step in row["steps"]]
    assert told == [
        ("requested", WARNED, None),
        ("dispatched", None, None),
        ("not_sent", "refused", None),
        ("dispatched", None, None),
        ("in_doubt", "the connection broke", None),
        ("failed", "a person's decision: he says so", "WillardC"),
    ]
    assert (row["outcome"], row["message"]) == ("failed", "he says so")
