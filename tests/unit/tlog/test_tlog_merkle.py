import pytest
import rfc6962_reference as reference
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import FORGED_ROOT_8, INPUTS, LARGE_LEAVES, LARGE_ROOTS, LEAVES, N45, ROOTS

from service.errors import Malformed
from service.tlog.merkle import EMPTY_ROOT, Frontier, fold, leaf_hash, leaf_hashes, node_hash, tree_root


def test_leaf_hashes_of_the_published_inputs() -> None:
    assert [leaf_hash(entry) for entry in INPUTS] == LEAVES
    assert leaf_hashes(INPUTS) == b"".join(LEAVES)


@pytest.mark.parametrize("size", range(9))
def test_roots_of_the_published_inputs(size: int) -> None:
    assert tree_root(leaf_hashes(INPUTS[:size])) == ROOTS[size]


def test_a_forged_entry_changes_the_root() -> None:
    assert tree_root(leaf_hashes([*INPUTS[:3], b"forged", *INPUTS[4:]])) == FORGED_ROOT_8


@pytest.mark.parametrize(("size", "root"), LARGE_ROOTS.items())
def test_roots_of_larger_trees(size: int, root: str) -> None:
    assert tree_root(LARGE_LEAVES[: 32 * size]).hex() == root


def test_a_node_is_never_a_leaf() -> None:
    assert node_hash(LEAVES[0], LEAVES[1]) == ROOTS[2]
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != ROOTS[2]


def test_the_frontier_holds_one_subtree_for_each_bit_of_the_size() -> None:
    frontier = Frontier().extend(leaf_hashes(INPUTS[:7]))
    assert frontier == Frontier(7, ROOTS[4] + N45 + LEAVES[6])
    assert frontier.root() == ROOTS[7]


def test_the_empty_frontier() -> None:
    assert Frontier().root() == fold(b"") == EMPTY_ROOT == ROOTS[0]
    assert Frontier().extend(b"") == Frontier()


@given(st.lists(st.binary(max_size=4), max_size=70), st.lists(st.integers(0, 70), max_size=6))
def test_any_split_into_batches_gives_the_tree_of_the_rfc(entries: list[bytes], cuts: list[int]) -> None:
    one_by_one = Frontier()
    for entry in entries:
        one_by_one = one_by_one.extend(leaf_hash(entry))
    batched = Frontier()
    edges = sorted({0, len(entries), *(cut for cut in cuts if cut < len(entries))})
    for start, end in zip(edges, edges[1:], strict=False):
        batched = batched.extend(leaf_hashes(entries[start:end]))
    assert batched == one_by_one
    assert batched.root() == reference.root(entries)
    assert Frontier.from_bytes(batched.to_bytes()) == batched


@given(st.integers(0, 70_000), st.sampled_from([1, 4, 8, 16]))
def test_chunks_hashed_apart_join_to_the_same_tree(size: int, height: int) -> None:
    leaves = LARGE_LEAVES[: 32 * size]
    chunk = 32 << height
    whole = len(leaves) - len(leaves) % chunk
    roots = [tree_root(leaves[at : at + chunk]) for at in range(0, whole, chunk)]
    joined = Frontier().extend(b"".join(roots), height).extend(leaves[whole:])
    assert joined == Frontier().extend(leaves)


def test_a_chunk_that_would_not_stand_on_its_own_boundary_is_refused() -> None:
    with pytest.raises(Malformed, match="height 2"):
        Frontier().extend(leaf_hashes(INPUTS[:6])).extend(ROOTS[4], height=2)


def test_half_a_hash_is_refused() -> None:
    with pytest.raises(Malformed, match="33 bytes"):
        Frontier().extend(bytes(33))


@pytest.mark.parametrize(("size", "hashes"), [(-1, b""), (0, bytes(32)), (3, bytes(32)), (2**63, bytes(32))])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, hashes: bytes) -> None:
    with pytest.raises(Malformed, match="frontier"):
        Frontier(size, hashes)


@given(st.binary(max_size=120))
def test_reading_a_frontier_from_any_bytes_succeeds_or_says_malformed(data: bytes) -> None:
    try:
        frontier = Frontier.from_bytes(data)
    except Malformed:
        return
    assert frontier.to_bytes() == data
