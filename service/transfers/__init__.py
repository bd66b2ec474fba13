"""The SingleStepTransfer command: at most one attempt each, settled by evidence.

`command` reads and checks, `decider` decides (pure), `handler` makes durable and sends, `evidence` judges
(pure), `settler` looks for evidence in the background, `work` is the table of what is still open.
"""

from service.transfers.command import TransferCommand, build_body, parse_command
from service.transfers.handler import Outcome, Timing, TransferHandler
from service.transfers.settler import Settler

__all__ = [
    "Outcome",
    "Settler",
    "Timing",
    "TransferCommand",
    "TransferHandler",
    "build_body",
    "parse_command",
]
