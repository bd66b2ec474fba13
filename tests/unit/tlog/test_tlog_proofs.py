import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import (
    CONSISTENCY,
    FORGED_ROOT_8,
    INCLUSION,
    INPUTS,
    LEAVES,
    N03,
    N45,
    N67,
    ROOTS,
    TileStore,
)

from service.errors import ProofRefused
from service.tlog.merkle import leaf_hashes, node_hash
from service.tlog.plans import consistency_plan, inclusion_plan
from service.tlog.proofs import verify_consistency, verify_inclusion

CASES = json.loads((Path(__file__).parent / "merkle_cases.json").read_text())
HASHES = [b64decode(text) for text in CASES["hashes"]]

STRICTER_HERE = {
    # Accepted there although its two roots are 12-byte dummies: a hash has 32 bytes here, always.
    "consistency/additional/sizes-are-equal-one-and-proof-is-empty",
}


def hashes(numbers: list[int] | None) -> list[bytes]:
    return [HASHES[number] for number in numbers or []]


@pytest.mark.parametrize("case", CASES["inclusion"], ids=lambda case: case[0])
def test_published_inclusion_cases(case: list) -> None:
    _name, index, size, leaf, root, proof, refused = case
    if refused:
        with pytest.raises(ProofRefused):
            verify_inclusion(HASHES[leaf], index, size, hashes(proof), HASHES[root])
    else:
        verify_inclusion(HASHES[leaf], index, size, hashes(proof), HASHES[root])


@pytest.mark.parametrize("case", CASES["consistency"], ids=lambda case: case[0])
def test_published_consistency_cases(case: list) -> None:
    name, old, new, old_root, new_root, proof, refused = case
    if refused or name in STRICTER_HERE:
        with pytest.raises(ProofRefused):
            verify_consistency(old, HASHES[old_root], new, HASHES[new_root], hashes(proof))
    else:
        verify_consistency(old, HASHES[old_root], new, HASHES[new_root], hashes(proof))


def test_all_published_cases_are_here() -> None:
    for kind in ("inclusion", "consistency"):
        refused = [case[-1] for case in CASES[kind]]
        assert (refused.count(True), refused.count(False)) == (92, 6)


def refuse_inclusion(match: str, leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    with pytest.raises(ProofRefused, match=match):
        verify_inclusion(leaf, index, size, proof, root)


def refuse_consistency(
    match: str, old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]
) -> None:
    with pytest.raises(ProofRefused, match=match):
        verify_consistency(old, old_root, new, new_root, proof)


@pytest.mark.parametrize("index", [8, 9, -1])
def test_an_index_outside_the_tree_is_refused(index: int) -> None:
    refuse_inclusion("no leaf", LEAVES[5], index, 8, INCLUSION[5, 8], ROOTS[8])


def test_nothing_is_included_in_the_empty_tree() -> None:
    refuse_inclusion("no leaf", LEAVES[0], 0, 0, [], ROOTS[0])


@pytest.mark.parametrize("wrong", [b"", bytes(12), LEAVES[5][:31], LEAVES[5] + b"\x00"])
def test_a_leaf_hash_of_another_length_is_refused(wrong: bytes) -> None:
    refuse_inclusion("SHA-256 has 32", wrong, 5, 8, INCLUSION[5, 8], ROOTS[8])
    refuse_inclusion("SHA-256 has 32", wrong, 0, 1, [], wrong)


@pytest.mark.parametrize("wrong", [b"", ROOTS[8][:31], ROOTS[8] + b"\x00"])
def test_a_root_of_another_length_is_refused(wrong: bytes) -> None:
    refuse_inclusion("SHA-256 has 32", LEAVES[5], 5, 8, INCLUSION[5, 8], wrong)
    refuse_consistency("SHA-256 has 32", 6, ROOTS[6], 8, wrong, CONSISTENCY[6, 8])
    refuse_consistency("SHA-256 has 32", 6, wrong, 8, ROOTS[8], CONSISTENCY[6, 8])
    refuse_consistency("SHA-256 has 32", 1, wrong, 1, wrong, [])


@pytest.mark.parametrize("at", range(3))
def test_a_proof_hash_of_another_length_is_refused(at: int) -> None:
    for wrong in (b"", bytes(31), bytes(33)):
        inclusion, consistency = list(INCLUSION[5, 8]), list(CONSISTENCY[6, 8])
        inclusion[at] = consistency[at] = wrong
        refuse_inclusion("SHA-256 has 32", LEAVES[5], 5, 8, inclusion, ROOTS[8])
        refuse_consistency("SHA-256 has 32", 6, ROOTS[6], 8, ROOTS[8], consistency)


def test_hashes_cut_elsewhere_are_refused() -> None:
    # The same bytes would be hashed: only the lengths tell.
    first, second = LEAVES[0] + LEAVES[1][:1], LEAVES[1][1:]
    refuse_inclusion("SHA-256 has 32", first, 0, 2, [second], ROOTS[2])


@pytest.mark.parametrize(("place", "proof"), INCLUSION.items())
def test_an_inclusion_proof_of_another_length_is_refused(place: tuple[int, int], proof: list[bytes]) -> None:
    index, size = place
    refuse_inclusion("too long", LEAVES[index], index, size, [*proof, ROOTS[8]], ROOTS[size])
    refuse_inclusion("too short", LEAVES[index], index, size, proof[:-1], ROOTS[size])
    refuse_inclusion("too short|another root", LEAVES[index], index, size, proof[1:], ROOTS[size])


@pytest.mark.parametrize(("sizes", "proof"), CONSISTENCY.items())
def test_a_consistency_proof_of_another_length_is_refused(sizes: tuple[int, int], proof: list[bytes]) -> None:
    old, new = sizes
    refuse_consistency("too long", old, ROOTS[old], new, ROOTS[new], [*proof, ROOTS[8]])
    refuse_consistency("too short|empty", old, ROOTS[old], new, ROOTS[new], proof[:-1])
    refuse_consistency("too short|empty|another root", old, ROOTS[old], new, ROOTS[new], proof[1:])


def test_a_proof_that_ends_early_at_a_true_hash_is_refused() -> None:
    # Leaf 4 of 5 has a proof of one hash; cut to the subtree of 4, its own proof would be accepted.
    refuse_inclusion("too short", LEAVES[0], 0, 5, [LEAVES[1], ROOTS[4]], ROOTS[4])


def test_an_empty_consistency_proof_is_refused() -> None:
    refuse_consistency("is empty", 4, ROOTS[4], 8, ROOTS[8], [])
    refuse_consistency("is empty", 6, ROOTS[6], 8, ROOTS[8], [])
    refuse_consistency("is empty", 4, ROOTS[4], 8, ROOTS[4], [])


def test_equal_sizes_need_equal_roots_and_no_proof() -> None:
    verify_consistency(8, ROOTS[8], 8, ROOTS[8], [])
    refuse_consistency("two different roots", 8, ROOTS[8], 8, FORGED_ROOT_8, [])
    refuse_consistency("must be empty", 8, ROOTS[8], 8, ROOTS[8], [N03])


def test_from_nothing_needs_the_empty_root_and_no_proof() -> None:
    verify_consistency(0, ROOTS[0], 0, ROOTS[0], [])
    verify_consistency(0, ROOTS[0], 8, ROOTS[8], [])
    refuse_consistency("empty tree", 0, ROOTS[8], 8, ROOTS[8], [])
    refuse_consistency("empty tree", 0, ROOTS[8], 0, ROOTS[8], [])
    refuse_consistency("must be empty", 0, ROOTS[0], 8, ROOTS[8], [N03])
    refuse_consistency("must be empty", 0, ROOTS[0], 0, ROOTS[0], [N03])


@pytest.mark.parametrize(("old", "new"), [(8, 6), (1, 0), (-1, 8), (-2, -1)])
def test_a_tree_does_not_shrink(old: int, new: int) -> None:
    refuse_consistency("does not grow", old, ROOTS[6], new, ROOTS[8], CONSISTENCY[6, 8])


def test_a_rewritten_log_cannot_be_proved_consistent() -> None:
    forged = TileStore(leaf_hashes([*INPUTS[:3], b"forged", *INPUTS[4:]]))
    refuse_consistency("at size 6", 6, ROOTS[6], 8, FORGED_ROOT_8, consistency_plan(6, 8).hashes(forged))
    refuse_consistency("at size 8", 6, ROOTS[6], 8, FORGED_ROOT_8, [N45, N67, N03])


def test_a_node_cannot_be_proved_as_a_leaf() -> None:
    # The two leaf hashes, taken as an entry, would hash to N01 were there no prefix.
    refuse_inclusion("another root", leaf_hashes([LEAVES[0] + LEAVES[1]]), 0, 2, [ROOTS[2]], ROOTS[4])
    assert node_hash(LEAVES[0], LEAVES[1]) == ROOTS[2]


@given(st.integers(1, 8), st.data())
def test_any_flipped_bit_in_an_inclusion_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_plan(index, size).hashes(TileStore(leaf_hashes(INPUTS[:size])))
    parts = [LEAVES[index], ROOTS[size], *proof]
    at = data.draw(st.integers(0, len(parts) - 1))
    parts[at] = flip(parts[at], data)
    leaf, root, *proof = parts
    refuse_inclusion("another root", leaf, index, size, proof, root)


@given(st.integers(2, 8), st.data())
def test_any_flipped_bit_in_a_consistency_is_refused(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_plan(old, new).hashes(TileStore(leaf_hashes(INPUTS[:new])))
    parts = [ROOTS[old], ROOTS[new], *proof]
    at = data.draw(st.integers(0, len(parts) - 1))
    parts[at] = flip(parts[at], data)
    old_root, new_root, *proof = parts
    refuse_consistency("another root", old, old_root, new, new_root, proof)


@given(st.integers(1, 8), st.integers(-1, 9), st.integers(0, 9))
def test_a_proof_holds_for_its_own_place_only(size: int, index: int, claimed_size: int) -> None:
    for true_index in range(size):
        proof = inclusion_plan(true_index, size).hashes(TileStore(leaf_hashes(INPUTS[:size])))
        if index != true_index:
            with pytest.raises(ProofRefused):
                verify_inclusion(LEAVES[true_index], index, size, proof, ROOTS[size])
        if claimed_size < true_index:
            with pytest.raises(ProofRefused):
                verify_inclusion(LEAVES[true_index], true_index, claimed_size, proof, ROOTS[size])


def flip(original: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 8 * len(original) - 1))
    changed = bytearray(original)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
