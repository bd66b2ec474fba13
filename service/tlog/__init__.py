"""Transparency logs as pure functions: RFC 6962 trees and C2SP notes, checkpoints, tiles and proofs.

Bytes in, bytes out: nothing here reads a file, a socket, a clock or a database. Hashes are 32 raw bytes, and
many of them are kept *packed*, that is concatenated, which is also how a tile keeps them.

Writing a log: `entry` makes the leaf of an event, `merkle.leaf_hashes` hashes a batch of leaves, `edge` grows
the tree and hands out the tiles that became full, `checkpoint` states and signs its root, `plans` builds
proofs from tiles, `tiles` names the files in which all of this is served.

Reading one: `note` and `checkpoint` check signatures, `cosignature` those of witnesses, `proofs` checks
inclusion and consistency, `proof_file` does all of it for one leaf, `evidence` for one event and its payload,
and `merkle.Frontier` recomputes the root of a whole log in one pass.

Nothing that came from outside raises anything but a `service.errors.TlogError`.
"""
