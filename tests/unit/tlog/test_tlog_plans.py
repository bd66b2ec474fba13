import pytest
import rfc6962_reference as reference
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import (
    CONSISTENCY,
    INCLUSION,
    INPUTS,
    LARGE,
    LARGE_LEAVES,
    LARGE_ROOTS,
    LEAVES,
    ROOTS,
    TileStore,
)

from service.errors import Malformed, OutsideTree
from service.tlog.merkle import leaf_hashes
from service.tlog.plans import consistency_plan, inclusion_plan, root_plan
from service.tlog.proofs import verify_consistency, verify_inclusion
from service.tlog.tiles import TileId, tile_width

EIGHT = TileStore(leaf_hashes(INPUTS))
LARGE_TILES = TileStore(LARGE_LEAVES)


@pytest.mark.parametrize(("place", "proof"), INCLUSION.items())
def test_known_inclusion_proofs(place: tuple[int, int], proof: list[bytes]) -> None:
    index, size = place
    assert inclusion_plan(index, size).hashes(EIGHT) == proof
    verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize(("sizes", "proof"), CONSISTENCY.items())
def test_known_consistency_proofs(sizes: tuple[int, int], proof: list[bytes]) -> None:
    old, new = sizes
    assert consistency_plan(old, new).hashes(EIGHT) == proof
    verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=600), st.data())
def test_proofs_are_those_of_the_rfc(entries: list[bytes], data: st.DataObject) -> None:
    read_tile = TileStore(leaf_hashes(entries))
    size = data.draw(st.integers(1, len(entries)))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    assert root_plan(size).hashes(read_tile) == [reference.root(entries[:size])]
    assert inclusion_plan(index, size).hashes(read_tile) == reference.inclusion(index, entries[:size])
    assert consistency_plan(old, size).hashes(read_tile) == reference.consistency(old, entries[:size])


@given(st.integers(1, LARGE), st.data())
def test_proofs_of_a_large_tree_hold(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    [root] = root_plan(size).hashes(LARGE_TILES)
    [old_root] = root_plan(old).hashes(LARGE_TILES)
    leaf = LARGE_LEAVES[32 * index : 32 * index + 32]
    verify_inclusion(leaf, index, size, inclusion_plan(index, size).hashes(LARGE_TILES), root)
    verify_consistency(old, old_root, size, root, consistency_plan(old, size).hashes(LARGE_TILES))


@pytest.mark.parametrize(("size", "root"), LARGE_ROOTS.items())
def test_the_root_at_an_earlier_size(size: int, root: str) -> None:
    [found] = root_plan(size).hashes(LARGE_TILES)
    assert found.hex() == root


def test_the_root_of_the_empty_tree_needs_no_tile() -> None:
    plan = root_plan(0)
    assert plan.tiles == ()
    assert plan.hashes(LARGE_TILES) == [ROOTS[0]]


@given(st.integers(1, 2**62), st.data())
def test_two_tiles_for_each_level_are_enough(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    levels = (size.bit_length() + 7) // 8
    for plan in (inclusion_plan(index, size), consistency_plan(old, size), root_plan(size)):
        assert len(plan.tiles) <= 2 * levels
        for tile in plan.tiles:
            assert tile.width == tile_width(tile.level, tile.index, size) > 0


def test_each_tile_is_read_once_and_only_if_it_was_named() -> None:
    store = TileStore(LARGE_LEAVES)
    plan = consistency_plan(12_345, LARGE)
    plan.hashes(store)
    assert store.read == list(plan.tiles)


def test_a_partial_tile_may_be_served_by_a_wider_one() -> None:
    asked = []

    def full_tile(tile: TileId) -> bytes:
        asked.append(tile.width)
        return LARGE_LEAVES[: 32 * 256]

    [root] = root_plan(100).hashes(full_tile)
    assert asked == [100]
    assert root == reference.root([str(number).encode() for number in range(100)])


def test_a_tile_that_is_too_short_is_named() -> None:
    with pytest.raises(Malformed, match=r"tile/0/000\.p/100"):
        root_plan(100).hashes(lambda _tile: bytes(32 * 99))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (8, 8), (-1, 8), (9, 8), (0, -1)])
def test_there_is_no_plan_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(OutsideTree):
        inclusion_plan(index, size)


@pytest.mark.parametrize(("old", "new"), [(9, 8), (-1, 8)])
def test_there_is_no_plan_for_a_tree_that_shrinks(old: int, new: int) -> None:
    with pytest.raises(OutsideTree):
        consistency_plan(old, new)


def test_there_is_no_plan_for_a_negative_size() -> None:
    with pytest.raises(OutsideTree):
        root_plan(-1)


@pytest.mark.parametrize("size", [0, 1, 8])
def test_consistency_from_nothing_or_with_itself_needs_no_hashes(size: int) -> None:
    assert consistency_plan(0, size).hashes(EIGHT) == []
    assert consistency_plan(size, size).hashes(EIGHT) == []
