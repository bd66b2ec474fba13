"""A GWS on loopback: agents, calls, CometD and REST, with faults on demand and its own truth."""
