"""calltrail: an event-sourced record of Genesys Web Services calls and of the transfers commanded on them.

In the order in which data meets them: `cometd` and `gws` speak to Genesys, `recorder` writes what they
deliver to the `log`, `transfers` commands through `gws` and writes what it does to the `log`,
`projections` fold the log into tables, and `api`, `web`, `cli` and `messaging` show them. `app` wires all
of it together. What may import what is checked (`lint-imports`).
"""

__version__ = "0.1.0"
