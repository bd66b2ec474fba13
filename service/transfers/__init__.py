"""The SingleStepTransfer command: at most one attempt that could be executed, settled by evidence.

`command` reads and checks, `decider` decides (pure), `journal` makes decisions durable, `handler` takes
commands, `dispatcher` sends them and works off the queue under `claims`, `evidence` judges (pure), `settler`
looks for evidence in the background, `work` is the table of what is still open.
"""

from service.transfers.command import TransferCommand, build_body, parse_command
from service.transfers.decider import Abandon, Finding, Settle, State, Transfer
from service.transfers.dispatcher import Client
from service.transfers.handler import Outcome, TransferHandler
from service.transfers.settler import Settler
from service.transfers.work import Timing

__all__ = [
    "Abandon",
    "Client",
    "Finding",
    "Outcome",
    "Settle",
    "Settler",
    "State",
    "Timing",
    "Transfer",
    "TransferCommand",
    "TransferHandler",
    "build_body",
    "parse_command",
]
