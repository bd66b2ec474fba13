import struct
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import LARGE_ENTRIES

from service.errors import Malformed
from service.tlog.tiles import (
    BundleId,
    TileId,
    decode_bundle,
    encode_bundle,
    full_tiles,
    parse_path,
    partial_tiles,
    tile_width,
)


@pytest.mark.parametrize(
    ("named", "path"),
    [
        (TileId(0, 0), "tile/0/000"),
        (TileId(0, 255), "tile/0/255"),
        (TileId(0, 1000), "tile/0/x001/000"),
        (TileId(3, 1234067), "tile/3/x001/x234/067"),
        (TileId(0, 273, 112), "tile/0/273.p/112"),
        (TileId(63, 0, 1), "tile/63/000.p/1"),
        (BundleId(0), "tile/entries/000"),
        (BundleId(1234067, 255), "tile/entries/x001/x234/067.p/255"),
    ],
)
def test_paths(named: TileId | BundleId, path: str) -> None:
    assert named.path == path
    assert parse_path(path) == named


@given(st.integers(0, 2**63 - 1), st.integers(1, 256), st.one_of(st.none(), st.integers(0, 63)))
def test_every_path_reads_back(index: int, width: int, level: int | None) -> None:
    named = BundleId(index, width) if level is None else TileId(level, index, width)
    assert parse_path(named.path) == named


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/000",
        "tile/64/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/8/0/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001/000",
        "tile/0/x000/001",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/data/000",
        "tile/0/\u0661\u0661\u0661",
        "tile/0/" + "x001/" * 7 + "000",
        "tile/0/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(Malformed, match="tile path"):
        parse_path(path)


@given(st.text(max_size=40))
def test_parsing_any_text_succeeds_or_says_malformed(text: str) -> None:
    for path in (text, f"tile/{text}", f"tile/0/{text}"):
        try:
            named = parse_path(path)
        except Malformed:
            continue
        assert named.path == path


def test_the_edge_of_the_tree_of_70000() -> None:
    assert partial_tiles(70_000) == [TileId(0, 273, 112), TileId(1, 1, 17), TileId(2, 0, 1)]
    assert partial_tiles(256) == [TileId(1, 0, 1)]
    assert partial_tiles(0) == []


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_full_tiles_are_those_whose_width_reached_256(one: int, other: int) -> None:
    old, new = sorted((one, other))
    became_full = [
        TileId(level, index)
        for level in range(3)
        for index in range(70_000 // 256 ** (level + 1) + 1)
        if tile_width(level, index, old) < 256 <= tile_width(level, index, new)
    ]
    assert list(full_tiles(old, new)) == became_full


@given(st.integers(0, 2**63 - 1), st.integers(0, 8))
def test_widths_are_those_of_the_specification(size: int, level: int) -> None:
    last = size // 256 ** (level + 1)
    assert tile_width(level, last, size) == size // 256**level % 256
    assert tile_width(level, last + 1, size) == 0
    if last:
        assert tile_width(level, last - 1, size) == 256


@pytest.mark.parametrize(
    ("bundle", "length", "digest"),
    [
        (BundleId(0), 1170, "94693d5c6d6a0355ec07bac8214516c1ce6a5100b0588f226fd95f26571157d7"),
        (BundleId(273, 112), 784, "36c3ec44895d1b8098dbe8523078d6750bf09e0f12cd64671ebfe165b7647405"),
    ],
)
def test_entry_bundles_of_the_large_tree(bundle: BundleId, length: int, digest: str) -> None:
    entries = LARGE_ENTRIES[256 * bundle.index : 256 * bundle.index + bundle.width]
    data = encode_bundle(entries)
    assert len(data) == length
    assert sha256(data).hexdigest() == digest
    assert decode_bundle(data) == entries


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_bundles_read_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries)) == entries


@given(st.binary(max_size=60))
def test_reading_any_bundle_succeeds_or_says_malformed(data: bytes) -> None:
    try:
        entries = decode_bundle(data)
    except Malformed:
        return
    assert encode_bundle(entries) == data


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", b"\x00\x02a", b"\x00\x00\x01", b"\x00\x00" * 257])
def test_a_broken_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="entry bundle"):
        decode_bundle(data)


def test_the_longest_entry_fits_and_a_longer_one_does_not() -> None:
    longest = bytes(65_535)
    assert encode_bundle([longest]) == struct.pack(">H", 65_535) + longest
    with pytest.raises(Malformed, match="65536 bytes"):
        encode_bundle([bytes(65_536)])
