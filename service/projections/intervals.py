"""Which intervals of positions contain a given one, by ordinary indexes: the relational interval tree.

(H.-P. Kriegel, M. Pötke, T. Seidl, "Managing Intervals Efficiently in
Object-Relational Databases", VLDB 2000.)

Each closed interval is filed under one node: the number in it that is divisible by the highest power of two.
All intervals that contain p are filed under p itself or under one of some thirty numbers that can be computed
from p: those below p (p with low bits cleared), where the interval must still reach p, and those above (p
with low bits cleared and one of its zeros set), where it must have begun by p. So an index on (node,
to_position) and one on (node, from_position) find exactly the wanted rows, however long the log is.
"""

from __future__ import annotations


def node_of(begin: int, end: int) -> int:
    """The node of the interval begin ≤ p < end."""
    last = end - 1
    differing = begin ^ last
    if not differing:
        return begin
    level = differing.bit_length() - 1
    return last >> level << level


def nodes_for(position: int, highest: int) -> tuple[list[int], list[int]]:
    """The nodes at or below, and those above `position`, of intervals that contain it.

    No interval reaches beyond `highest`.
    """
    below, above = {position}, set()
    for level in range(max(highest, position, 1).bit_length()):
        prefix = position >> level
        if prefix & 1:
            below.add(prefix << level)
        else:
            above.add((prefix | 1) << level)
    return sorted(below), sorted(node for node in above if node <= highest)
