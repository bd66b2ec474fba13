"""Uses a client that `openapi-python-client` made of our document: run with the generator's own Python.

Arguments: the folder with the client's package, the service's address, a call's id. Prints what it was told.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from calltrail_client import Client
from calltrail_client.api.calls import call, calls, history
from calltrail_client.api.projections import coverage
from calltrail_client.api.redaction import holds, place
from calltrail_client.api.transfers import transfer, transfers
from calltrail_client.models import NewHold, Problem

_, _, address, call_id = sys.argv

with Client(base_url=address, raise_on_unexpected_status=True) as client:
    live = calls.sync(client=client)
    then = call.sync(call_id, client=client, as_of="0")
    one = call.sync(call_id, client=client)
    told = history.sync(call_id, client=client)
    page = transfers.sync(client=client, call_id=call_id, data=["TransferReason=Escalation"], limit=10)
    trail = transfer.sync(page["transfers"][0]["transfer_id"], client=client)
    spans = coverage.sync("15000", client=client)
    placed = place.sync(client=client, body=NewHold(case="C-1", by="legal", why="asked for", call_id=call_id))
    standing = holds.sync(client=client)

assert isinstance(then, Problem)
document = {
    "calls": live.to_dict(),
    "unknown": then.to_dict(),
    "call": one.to_dict(),
    "history": told.to_dict(),
    "transfers": page.to_dict(),
    "trail": trail.to_dict(),
    "coverage": spans.to_dict(),
    "placed": placed.to_dict(),
    "holds": standing.to_dict(),
}
sys.stdout.write(json.dumps(document))
