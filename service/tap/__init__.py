"""The tap: a reverse proxy in front of GWS that records what it carries and protects transfers.

Applications point their base URL at it, and nothing else changes: whatever they send reaches GWS as they
sent it, whatever GWS answers reaches them as it came. On the way

- what CometD delivers is made durable before it is passed on, each element byte for byte, under ids by which
  a redelivery is recognised (`recording`, `sessions`, `polling`, `reading`);
- what is commanded is recorded with GWS's answer (`observing`);
- `SingleStepTransfer` goes through the handler of `service.transfers` (`protecting`);
- and if the log is away, telephony goes on and the gap is recorded (`gate`).

Below that is a proxy that knows nothing of GWS. It reads HTTP/1.1 strictly and by itself (`heads`, `bodies`,
`frames`), because a library that parses and writes anew would change what passes, and because what two
readers could read differently must be refused. Each client has one task, one connection of its own to the
server and two buffers (`visit`, `relay`, `wire`), so thousands of held polls cost little, and a connection's
fate is the same on both sides. The server is one and fixed (`upstream`); `server` and `listening` take
connections and hand the port over to a successor.
"""

from service.tap.listening import parse_address
from service.tap.server import Server
from service.tap.tap import Tap
from service.tap.upstream import Upstream, server_tls

__all__ = ["Server", "Tap", "Upstream", "parse_address", "server_tls"]
