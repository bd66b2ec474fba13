"""The Merkle tree of RFC 6962 §2.1: SHA-256, a leaf prefix, a node prefix, no padding.

Many hashes travel *packed*: 32 bytes each, concatenated. That is a tile's own form, one check of a length
stands for many, and hashing a level of the tree is one comprehension over one bytes object.

A `Frontier` is all that is needed to go on appending: the roots of the complete subtrees that make up the
tree, one for each 1-bit of its size. It recomputes a whole log in one pass. To use several cores, cut the log
into chunks of 2^h leaves (65,536 is good), let each worker return ``tree_root(leaf_hashes(chunk))``, and join
them::

    frontier = Frontier().extend(b"".join(chunk_roots), height=16).extend(leaf_hashes(last_chunk))

`fold` is the one place where unequal subtrees are joined: roots, proofs and frontiers all end in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from service.errors import Malformed
from service.tlog.encoding import HASH_BYTES, LARGEST_SIZE

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""

_SIZE_BYTES = 8


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaf_hashes(entries: Iterable[bytes]) -> bytes:
    """Return the packed leaf hashes of many entries."""
    sha256 = hashlib.sha256
    return b"".join([sha256(b"\x00" + entry).digest() for entry in entries])


def parents(hashes: bytes) -> bytes:
    """Return the packed parents of packed nodes: each two neighbours make one.

    The number of nodes must be even; the callers here see to it.
    """
    sha256 = hashlib.sha256
    pair = 2 * HASH_BYTES
    return b"".join([sha256(b"\x01" + hashes[at : at + pair]).digest() for at in range(0, len(hashes), pair)])


def fold(subtrees: bytes) -> bytes:
    """Return the root over packed roots of complete subtrees, each smaller than the one before it.

    That is the shape into which RFC 6962 cuts every tree. Without any subtree it is the empty tree's root.
    """
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-HASH_BYTES:]
    for at in range(len(subtrees) - 2 * HASH_BYTES, -1, -HASH_BYTES):
        root = node_hash(subtrees[at : at + HASH_BYTES], root)
    return root


def tree_root(hashes: bytes) -> bytes:
    """Return the root of the tree over packed leaf hashes, or over the roots of equal complete subtrees.

    Raises `Malformed` when the length is not a multiple of 32.
    """
    return Frontier().extend(hashes).root()


def check_packed(hashes: bytes, part: str) -> None:
    """Raise `Malformed`, naming `part`, when `hashes` is not a whole number of hashes."""
    if len(hashes) % HASH_BYTES:
        raise Malformed(part, f"{len(hashes)} bytes are not a multiple of {HASH_BYTES}")


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves, as the packed roots of its complete subtrees, the largest first.

    A value: appending returns another one. Raises `Malformed` when `hashes` does not fit `size`.
    """

    size: int = 0
    hashes: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.size <= LARGEST_SIZE:
            raise Malformed("frontier", f"size {self.size} is not between 0 and 2^63 - 1")
        if len(self.hashes) != self.size.bit_count() * HASH_BYTES:
            raise Malformed(
                "frontier",
                f"a tree of {self.size} leaves has {self.size.bit_count()} complete subtrees, "
                f"{len(self.hashes)} bytes of hashes do not fit",
            )

    def extend(self, hashes: bytes, height: int = 0) -> Frontier:
        """Return the tree with more leaves: packed leaf hashes, or roots of subtrees of 2^height leaves.

        About one hash is computed for each one given. Raises `Malformed` when the length is not a multiple of
        32, or when the size so far is not a multiple of 2^height.
        """
        check_packed(hashes, "appended hashes")
        if self.size % (1 << height):
            raise Malformed(
                "appended hashes", f"subtrees of height {height} cannot stand at the odd position {self.size}"
            )
        size = self.size + ((len(hashes) // HASH_BYTES) << height)
        standing, left_over = self.hashes, []
        # One round for each level: take up the node that waits there alone, leave behind one that is alone.
        level = self.size >> height
        while hashes:
            if level & 1:
                standing, hashes = standing[:-HASH_BYTES], standing[-HASH_BYTES:] + hashes
            if len(hashes) % (2 * HASH_BYTES):
                left_over.append(hashes[-HASH_BYTES:])
                hashes = hashes[:-HASH_BYTES]
            hashes = parents(hashes)
            level >>= 1
        return Frontier(size, standing + b"".join(reversed(left_over)))

    def root(self) -> bytes:
        return fold(self.hashes)

    def to_bytes(self) -> bytes:
        """Return the size as 8 bytes, big-endian, then the hashes: at most 2,024 bytes."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + self.hashes

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Read what `to_bytes` wrote. Raises `Malformed`."""
        if len(data) < _SIZE_BYTES:
            raise Malformed("frontier", f"{len(data)} bytes cannot hold a size of {_SIZE_BYTES}")
        return cls(int.from_bytes(data[:_SIZE_BYTES], "big"), data[_SIZE_BYTES:])
