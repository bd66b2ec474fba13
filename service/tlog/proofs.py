"""Checking inclusion and consistency proofs, by the algorithms of RFC 9162 §2.1.3.2 and §2.1.4.2.

Stricter than the text in what it leaves open: every hash has exactly 32 bytes, the tree of size 0 has the
root SHA-256(""), and a consistency proof from size 0, or between equal sizes, is empty. Each function returns
nothing when the proof holds and raises `ProofRefused` otherwise, so that no caller can forget to look at the
answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import ProofRefused
from service.tlog.encoding import HASH_BYTES
from service.tlog.merkle import EMPTY_ROOT, node_hash


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash stands at `index`, from 0, in the tree of this size and root.

    `proof` holds the siblings, the leaf's own first. Raises `ProofRefused`.
    """
    _check_hashes([leaf_hash, root, *proof])
    if not 0 <= index < size:
        raise ProofRefused(f"a tree of {size} leaves has no leaf {index}")
    node, last_node = index, size - 1
    computed = leaf_hash
    for sibling in proof:
        if last_node == 0:
            raise ProofRefused("the inclusion proof is too long")
        if node & 1 or node == last_node:
            computed = node_hash(sibling, computed)
            node, last_node = _skip_levels_without_sibling(node, last_node)
        else:
            computed = node_hash(computed, sibling)
        node >>= 1
        last_node >>= 1
    if last_node != 0:
        raise ProofRefused("the inclusion proof is too short")
    if computed != root:
        raise ProofRefused(f"the inclusion proof of leaf {index} leads to another root than the tree's")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree begins with all leaves of the old one, in the same order.

    Raises `ProofRefused`.
    """
    _check_hashes([old_root, new_root, *proof])
    if not 0 <= old_size <= new_size:
        raise ProofRefused(f"a tree of {new_size} leaves does not grow from one of {old_size}")
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise ProofRefused("the root of an empty tree is not SHA-256 of nothing")
    if old_size == new_size and old_root != new_root:
        raise ProofRefused(f"two different roots for the same size {old_size}")
    if old_size in {0, new_size}:
        if proof:
            raise ProofRefused(f"the consistency proof from {old_size} to {new_size} must be empty")
        return
    _verify_growth(old_size, old_root, new_size, new_root, proof)


def _verify_growth(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check the proof for 0 < old < new."""
    # An old tree that is one complete subtree is itself where the proof starts.
    hashes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not proof:
        raise ProofRefused(f"the consistency proof from {old_size} to {new_size} is empty")
    node, last_node = old_size - 1, new_size - 1
    while node & 1:
        node >>= 1
        last_node >>= 1
    old_computed = new_computed = hashes[0]
    for sibling in hashes[1:]:
        if last_node == 0:
            raise ProofRefused("the consistency proof is too long")
        if node & 1 or node == last_node:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
            node, last_node = _skip_levels_without_sibling(node, last_node)
        else:
            new_computed = node_hash(new_computed, sibling)
        node >>= 1
        last_node >>= 1
    if last_node != 0:
        raise ProofRefused("the consistency proof is too short")
    if old_computed != old_root:
        raise ProofRefused(f"the consistency proof leads to another root at size {old_size}")
    if new_computed != new_root:
        raise ProofRefused(f"the consistency proof leads to another root at size {new_size}")


def _skip_levels_without_sibling(node: int, last_node: int) -> tuple[int, int]:
    """Go up while a node at the right edge has no sibling: there it is its own parent."""
    while node and not node & 1:
        node >>= 1
        last_node >>= 1
    return node, last_node


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for given in hashes:
        if len(given) != HASH_BYTES:
            raise ProofRefused(f"a hash of {len(given)} bytes; SHA-256 has {HASH_BYTES}")
