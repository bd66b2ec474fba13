from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlog_vectors import LARGE, LARGE_LEAVES, LARGE_ROOTS, TileStore

from service.errors import Malformed
from service.tlog.edge import FullTile, RightEdge
from service.tlog.merkle import Frontier, tree_root
from service.tlog.tiles import full_tiles

LARGE_TILES = TileStore(LARGE_LEAVES)


@pytest.mark.parametrize(
    ("level", "index", "digest"),
    [
        (0, 0, "b9704a8bfbee2c61185ceb38904a49f3f703c81e194b5b2ccdc254c2bdaaa62b"),
        (1, 0, "ea7b038bc73489c89c31a27ac355aaca65a4ed73f0dd7484e68deb29d30f10a2"),
    ],
)
def test_full_tiles_of_the_large_tree(level: int, index: int, digest: str) -> None:
    contents = [tile.hashes for tile in LARGE_TILES.full_tiles if (tile.level, tile.index) == (level, index)]
    assert [sha256(hashes).hexdigest() for hashes in contents] == [digest]


def test_partial_tiles_of_the_large_tree() -> None:
    level_0, level_1, level_2 = LARGE_TILES.edge.tiles
    assert len(level_0) == 112 * 32
    assert sha256(level_0).hexdigest() == "4d21244557c976993a9a89bf928a46b5a876585228df279878239fd84489e5a5"
    assert len(level_1) == 17 * 32
    assert sha256(level_1).hexdigest() == "adfaca2731630fe7944a4b98a0f98ef3e98685eafda09e6f81070218fb759ce4"
    assert level_2.hex() == "f025d06ed804859fd274a1bdacadd6e48ea87634aa91e1edb20143f9498cd02b"


@pytest.mark.parametrize(("size", "root"), LARGE_ROOTS.items())
def test_the_root_follows_from_the_edge(size: int, root: str) -> None:
    assert RightEdge().append(LARGE_LEAVES[: 32 * size]).edge.root().hex() == root


def test_at_256_leaves_one_tile_is_full_and_its_root_begins_the_next_level() -> None:
    leaves = LARGE_LEAVES[: 32 * 256]
    edge, tiles = RightEdge().append(leaves)
    assert tiles == [FullTile(0, 0, leaves)]
    assert edge.tiles == (b"", tree_root(leaves))


@settings(max_examples=40)
@given(st.lists(st.integers(0, LARGE), max_size=8))
def test_any_split_into_batches_gives_the_same_tiles_and_tree(cuts: list[int]) -> None:
    edge, tiles, size = RightEdge(), [], 0
    for cut in [*sorted(cuts), LARGE]:
        growth = edge.append(LARGE_LEAVES[32 * size : 32 * cut])
        assert [(tile.level, tile.index) for tile in growth.full_tiles] == [
            (tile.level, tile.index) for tile in full_tiles(size, cut)
        ]
        tiles += growth.full_tiles
        edge, size = growth.edge, cut
        assert edge.frontier() == Frontier().extend(LARGE_LEAVES[: 32 * cut])
    assert edge == LARGE_TILES.edge
    assert sorted(tiles, key=lambda tile: (tile.level, tile.index)) == LARGE_TILES.full_tiles


def test_one_by_one_is_the_same_as_all_at_once() -> None:
    edge, tiles = RightEdge(), []
    for at in range(0, 32 * 600, 32):
        edge, became_full = edge.append(LARGE_LEAVES[at : at + 32])
        tiles += became_full
    assert (edge, tiles) == RightEdge().append(LARGE_LEAVES[: 32 * 600])


def test_levels_that_did_not_change_are_the_same_objects() -> None:
    before = LARGE_TILES.edge
    after = before.append(bytes(32)).edge
    assert after.tiles[0] is not before.tiles[0]
    assert after.tiles[1] is before.tiles[1]
    assert after.tiles[2] is before.tiles[2]


@given(st.integers(0, LARGE))
def test_an_edge_survives_the_way_through_bytes(size: int) -> None:
    edge = RightEdge().append(LARGE_LEAVES[: 32 * size]).edge
    assert RightEdge.from_bytes(edge.to_bytes()) == edge


@given(st.binary(max_size=400))
def test_reading_an_edge_from_any_bytes_succeeds_or_says_malformed(data: bytes) -> None:
    try:
        edge = RightEdge.from_bytes(data)
    except Malformed:
        return
    assert edge.to_bytes() == data


@pytest.mark.parametrize(
    ("size", "tiles"),
    [(-1, ()), (2**63, (b"",) * 8), (1, ()), (1, (bytes(31),)), (256, (b"",)), (0, (bytes(32),))],
)
def test_an_edge_that_does_not_fit_its_size_is_refused(size: int, tiles: tuple[bytes, ...]) -> None:
    with pytest.raises(Malformed, match="right edge"):
        RightEdge(size, tiles)


def test_half_a_hash_is_refused() -> None:
    with pytest.raises(Malformed, match="31 bytes"):
        RightEdge().append(bytes(31))
