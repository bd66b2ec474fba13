"""Personal data is blanked on request, and stays while a legal hold covers it.

A redaction names a call and fields. It blanks them in every event that tells of the call (`blanking`), unless
a hold forbids it (`holds`), in transactions of the log that each carry a `PayloadRedacted` (`redactor`). That
event makes the projections fold the call anew (`service.projections.refold`); last, Postgres is told to clear
away what the old rows have left behind. Each step can be repeated, so a redaction that was cut off is carried
on by ordering it again.
"""

from service.redaction.blanking import Fields
from service.redaction.holds import Hold, Holds, Scope, list_holds, place_hold, release_hold
from service.redaction.redactor import Order, Outcome, Plan, Redactor, list_redactions

__all__ = [
    "Fields",
    "Hold",
    "Holds",
    "Order",
    "Outcome",
    "Plan",
    "Redactor",
    "Scope",
    "list_holds",
    "list_redactions",
    "place_hold",
    "release_hold",
]
