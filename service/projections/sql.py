"""The engine's statements about its own bookkeeping, by name."""

from __future__ import annotations

import sqlalchemy as sa

from service.projections.projection import metadata

projection = sa.Table(
    "projection",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
)

ENTER_FIRST = sa.text("""
INSERT INTO projection (name, generation, live) SELECT :name, 1, true
WHERE NOT EXISTS (SELECT 1 FROM projection WHERE name = :name AND live)
ON CONFLICT DO NOTHING
""")
"""The first generation of a projection that is new."""

LOCK_LIVE = sa.text("""
SELECT generation, position FROM projection WHERE name = :name AND live FOR UPDATE
""")
"""The live generation; nobody else folds or swaps it until the transaction ends."""

MOVE = sa.text("""
UPDATE projection SET position = :position, updated_at = clock_timestamp()
WHERE name = :name AND generation = :generation
""")

ENTER_NEXT = sa.text("""
INSERT INTO projection (name, generation)
SELECT :name, coalesce(max(generation), 0) + 1 FROM projection WHERE name = :name
RETURNING generation
""")

SWAP_OUT = sa.text("UPDATE projection SET live = false WHERE name = :name AND live")
SWAP_IN = sa.text("UPDATE projection SET live = true WHERE name = :name AND generation = :generation")
"""In this order: an index allows one live generation."""

FORGET = sa.text("DELETE FROM projection WHERE name = :name AND NOT live AND generation <> :generation")


def live_generation(name: str) -> sa.ScalarSelect[int]:
    """The generation of `name` that readers see."""
    live = sa.select(projection.c.generation).where(projection.c.name == name, projection.c.live)
    return live.scalar_subquery()
