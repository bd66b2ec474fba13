"""A GWS on loopback: agents, calls, CometD and REST, with faults on demand and its own truth.

    async with Simulator(seed=1, agent_count=3) as sim:
        call = sim.place_call("15001", "15000")
        sim.answer(call.id, "15000")
        fault = sim.faults.add("drop_after_execution", agent="15000")
        ...                                   # a client transfers the call through sim.url
        sim.truth.transfers_of(call.id)       # what really happened

It shares no code with the rooms that speak to GWS, so that one cannot hide the other's mistakes. From the
bottom: `options` (what a server can be told to be), `agents`, `switch` (calls and legs, pure), `messages`
(the texts), `truth` and `faults`, `bayeux` (CometD without sockets), `logins` (credentials), `world` (all
of these together), and on HTTP `rest`, `notifications` and `control`, served by `server`. `scenario` makes
a busy contact centre of it, whose agents use the applications of `desk`.
"""

from service.simulator.faults import Fault
from service.simulator.options import Options
from service.simulator.scenario import Scenario
from service.simulator.server import Simulator, run, serve
from service.simulator.switch import Call, Refused
from service.simulator.truth import Truth

__all__ = ["Call", "Fault", "Options", "Refused", "Scenario", "Simulator", "Truth", "run", "serve"]
