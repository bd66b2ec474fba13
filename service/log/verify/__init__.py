"""Verifying the log: everything is computed anew from the rows and compared with all that is kept.

On all cores: each worker takes a chunk of positions, opens every commitment, makes every leaf, and compares
the leaves with the stored tiles. The roots of the chunks are then joined and compared with the head, with the
upper tiles, with every kept checkpoint, and with those that an auditor has kept elsewhere. Where one differs
it is said what and where: a row against its tile when the tiles make the root that was signed, a tile when
the rows do; and where both were changed, between which two checkpoints.
"""

from service.log.verify.report import Difference, Kind, Report
from service.log.verify.whole import verify_log

__all__ = ["Difference", "Kind", "Report", "verify_log"]
