"""How a payload is stored: codec 0 keeps it as it is, codec n is zstd with dictionary n.

Dictionaries stand in the table `log_codec` and are never changed or removed, so whatever was stored can be
read for ever. The first comes with the program; `train` makes better ones from the log's own payloads. Which
one new payloads are stored with says `log_head.codec`: every appender learns of a change with its next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import zstandard

from service.errors import DatabaseError, NotEnoughTraffic
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

FEWEST_SAMPLES = 200
MOST_SAMPLES = 20_000


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


class Training(NamedTuple):
    """A new dictionary, and what it does to payloads that it was not trained on."""

    dictionary: bytes
    samples: int
    bytes_before: float
    """Stored bytes a payload with the dictionary in use."""
    bytes_after: float


def train(payloads: Sequence[bytes], current: Codec) -> Training:
    """Train a dictionary on nine tenths of `payloads` and compare it with `current` on the tenth.

    Raises:
        NotEnoughTraffic: too few payloads to learn from.

    """
    judged = payloads[::10]
    learnt: list[bytes | bytearray | memoryview[int]] = [
        payload for index, payload in enumerate(payloads) if index % 10
    ]
    if len(payloads) < FEWEST_SAMPLES:
        raise NotEnoughTraffic(f"{len(payloads)} payloads; a dictionary needs {FEWEST_SAMPLES} or more")
    size = min(DICTIONARY_BYTES, max(1 << 10, sum(map(len, learnt)) // 10))
    try:
        dictionary = zstandard.train_dictionary(size, learnt).as_bytes()
    except zstandard.ZstdError as error:
        raise NotEnoughTraffic(f"the payloads are too few or too small to learn from ({error})") from error
    candidate = Codec(current.number, dictionary)
    return Training(dictionary, len(learnt), mean_stored(current, judged), mean_stored(candidate, judged))


def mean_stored(codec: Codec, payloads: Sequence[bytes]) -> float:
    return sum(len(codec.pack(payload)[1]) for payload in payloads) / len(payloads)


def first_dictionary() -> bytes:
    """Codec 1: the dictionary that comes with the program. Its bytes never change."""
    return files("service.log").joinpath("data/dictionary-1.zstd-dict").read_bytes()
