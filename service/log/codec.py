"""How a payload is stored: codec 0 keeps it as it is, codec n is zstd with dictionary n.

Dictionaries stand in the table `log_codec` and are never changed or removed, so whatever was stored can be
read for ever. The first comes with the program; `service.log.training` makes others from the log. Which one
new payloads are stored with says `log_head.codec`: every appender learns of a change with its next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg
import zstandard

from service.errors import DatabaseError
from service.log import sql

if TYPE_CHECKING:
    Reader = (
        asyncpg.Connection[asyncpg.Record]
        | asyncpg.Pool[asyncpg.Record]
        | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )

AS_IS = 0
LEVEL = 1
DICTIONARY_BYTES = 112 << 10
LARGEST_PAYLOAD = 1 << 30
"""No stored form is unpacked to more than this many bytes, whatever it claims."""


class Codec:
    """zstd with one dictionary. Packing needs tables that unpacking does not; they are made when needed."""

    def __init__(self, number: int, dictionary: bytes) -> None:
        self.number = number
        self._dictionary = zstandard.ZstdCompressionDict(dictionary)
        self._unpack = zstandard.ZstdDecompressor(
            dict_data=self._dictionary, max_window_size=LARGEST_PAYLOAD
        ).decompress
        self._compressor: zstandard.ZstdCompressor | None = None

    def pack(self, payload: bytes) -> tuple[int, bytes]:
        """The codec and the stored form of `payload`; one that does not shrink is kept as it is."""
        if self._compressor is None:
            self._dictionary.precompute_compress(level=LEVEL)
            self._compressor = zstandard.ZstdCompressor(
                level=LEVEL, dict_data=self._dictionary, write_dict_id=False, write_checksum=False
            )
        stored = self._compressor.compress(payload)
        return (self.number, stored) if len(stored) < len(payload) else (AS_IS, payload)

    def unpack(self, stored: bytes) -> bytes:
        """The payload of `stored`.

        Raises:
            DatabaseError: it is not what `pack` makes.

        """
        try:
            if zstandard.frame_content_size(stored) > LARGEST_PAYLOAD:
                raise DatabaseError("a stored payload claims to be larger than any may be")
            return self._unpack(stored)
        except zstandard.ZstdError as error:
            raise DatabaseError(f"a stored payload cannot be unpacked: {error}") from error


class Codecs:
    """The dictionaries that this process has read; `load` those that it meets before `decode`."""

    def __init__(self) -> None:
        self._known: dict[int, Codec] = {}

    def missing(self, numbers: Iterable[int]) -> set[int]:
        """Those among `numbers` that must be loaded before they can be used."""
        return {number for number in numbers if number != AS_IS and number not in self._known}

    async def load(self, connection: Reader) -> None:
        """Read every dictionary that is not known yet."""
        for number, dictionary in await connection.fetch(sql.CODECS, list(self._known)):
            self._known[number] = Codec(number, dictionary)

    def use(self, dictionaries: Mapping[int, bytes]) -> Codecs:
        """Take dictionaries that were read elsewhere; returns itself."""
        self._known |= {number: Codec(number, dictionary) for number, dictionary in dictionaries.items()}
        return self

    def __getitem__(self, number: int) -> Codec:
        """Raises `DatabaseError` for a codec that is not in the database."""
        try:
            return self._known[number]
        except KeyError:
            raise DatabaseError(f"a payload is stored with codec {number}, which is not there") from None

    def unpackers(self) -> dict[int, Callable[[bytes], bytes]]:
        """For each codec that is known, what makes a payload of its stored form; for many payloads."""
        return {AS_IS: bytes, **{number: codec.unpack for number, codec in self._known.items()}}

    def decode(self, number: int, stored: bytes) -> bytes:
        """The payload of `stored`, the very bytes that were appended."""
        return stored if number == AS_IS else self[number].unpack(stored)


def first_dictionary() -> bytes:
    """Codec 1: the dictionary that comes with the program. Its bytes never change."""
    return files("service.log").joinpath("data/dictionary-1.zstd-dict").read_bytes()
