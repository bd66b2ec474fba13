"""Training a dictionary on the log's own payloads, without anybody's data in it.

A dictionary holds pieces of what it was trained on, and is kept for ever: no redaction reaches it. So only
words go into the training that stand in `FEWEST_STREAMS` streams or more, that is in the payloads of as many
calls; a number, a name or an id of fewer calls never does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import zstandard

from service.errors import NotEnoughTraffic
from service.log import sql
from service.log.codec import DICTIONARY_BYTES, Codec, Codecs
from service.log.store import EventLog
from service.postgres import database_errors

FEWEST_SAMPLES = 200
MOST_SAMPLES = 20_000
FEWEST_STREAMS = 20
STEP = 8  # bytes: ids of one T-Server's calls begin alike
BETTER = 0.98  # of the bytes that the dictionary in use leaves, or it is not worth a new one
PAGE = 1_000

_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+")


class Sample(NamedTuple):
    """A payload, and the stream it stands in."""

    stream: str
    payload: bytes


class Training(NamedTuple):
    """A new dictionary, and what it does to payloads that it was not trained on."""

    dictionary: bytes
    samples: int
    bytes_before: float
    """Stored bytes a payload with the dictionary in use."""
    bytes_after: float

    @property
    def is_better(self) -> bool:
        return self.bytes_after < self.bytes_before * BETTER


async def train_on_log(log: EventLog) -> tuple[Training, int]:
    """Train on the newest payloads, use the dictionary from now on if it is better; and the codec in use.

    Raises:
        NotEnoughTraffic: too few payloads to learn from.

    """
    end = await log.next_position()
    samples = [
        Sample(event.stream, event.payload)
        for start in range(max(0, end - MOST_SAMPLES), end, PAGE)
        for event in await log.read(after=start - 1, limit=PAGE)
    ]
    pool = log.database.pool
    with database_errors():
        codecs = Codecs()
        await codecs.load(pool)
        in_use: int = await pool.fetchval(sql.CODEC_IN_USE)
        training = train(samples, codecs[in_use])
        if training.is_better:
            in_use = await pool.fetchval(sql.USE_NEW_CODEC, training.dictionary, training.samples)
    return training, in_use


def train(samples: Sequence[Sample], current: Codec) -> Training:
    """Train a dictionary on nine tenths of `samples` and compare it with `current` on the tenth.

    Raises:
        NotEnoughTraffic: too few payloads to learn from.

    """
    if len(samples) < FEWEST_SAMPLES:
        raise NotEnoughTraffic(f"{len(samples)} payloads; a dictionary needs {FEWEST_SAMPLES} or more")
    judged = [sample.payload for sample in samples[::10]]
    learnt: list[bytes | bytearray | memoryview[int]] = [
        *common_parts([sample for index, sample in enumerate(samples) if index % 10])
    ]
    size = min(DICTIONARY_BYTES, max(1 << 10, sum(map(len, learnt)) // 10))
    try:
        dictionary = zstandard.train_dictionary(size, learnt).as_bytes()
    except zstandard.ZstdError as error:
        raise NotEnoughTraffic(f"the payloads are too few or too small to learn from ({error})") from error
    candidate = Codec(current.number, dictionary)
    return Training(dictionary, len(learnt), mean_stored(current, judged), mean_stored(candidate, judged))


def common_parts(samples: Sequence[Sample]) -> list[bytes]:
    """The payloads without words that stand in few streams only; of those, the beginnings that many share."""
    streams_of: dict[bytes, set[str]] = defaultdict(set)
    for stream, payload in samples:
        for word in set(_WORD.findall(payload)):
            for end in endings(word):
                streams_of[word[:end]].add(stream)
    common = {word for word, streams in streams_of.items() if len(streams) >= FEWEST_STREAMS}

    def shared(found: re.Match[bytes]) -> bytes:
        word = found[0]
        return next((word[:end] for end in endings(word) if word[:end] in common), b"")

    return [_WORD.sub(shared, payload) for _, payload in samples]


def endings(word: bytes) -> list[int]:
    """Where a word, and the beginnings of it that are looked at, end; the longest first."""
    return [len(word), *range((len(word) - 1) // STEP * STEP, 0, -STEP)]


def mean_stored(codec: Codec, payloads: Sequence[bytes]) -> float:
    return sum(len(codec.pack(payload)[1]) for payload in payloads) / len(payloads)
