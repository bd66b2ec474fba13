from __future__ import annotations

import re
from itertools import islice

import pytest
import zstandard

from service.errors import NotEnoughTraffic
from service.log import EventLog, open_log
from service.log.codec import Codec, first_dictionary
from service.log.training import Sample, train, train_on_log
from service.log.verify import verify_log
from service.postgres import Database
from service.projections.histories import Histories

PERSONAL = re.compile(rb"030\d{7}|\"CustomerId\":\"(\d{4,8})\"")


def samples(count: int) -> list[Sample]:
    return [Sample(event.stream, event.payload) for event in islice(Histories(live=50).events(), count)]


async def test_a_trained_dictionary_serves_new_payloads_and_old_ones_stay_readable(
    log: EventLog, database: Database
) -> None:
    traffic = Histories(live=50).events()
    events = list(islice(traffic, 2_500))
    await log.append(events[:2_000])
    training, codec = await train_on_log(log)
    assert (training.is_better, codec) == (True, 2)
    async with open_log(database, max_payload_bytes=1 << 20) as restarted:
        await log.append(events[2_000:2_250])
        await log.append(events[2_250:2_400])  # by now the appender has read the new dictionary
        await restarted.append(events[2_400:])
        for reader in (log, restarted):
            stored = [one for at in (0, 1_000, 2_000) for one in await reader.read(after=at - 1, limit=1_000)]
            assert [one.payload for one in stored] == [event.payload for event in events]
    used = "SELECT codec, min(position), count(*) FROM event_log WHERE codec > 0 GROUP BY 1 ORDER BY 1"
    first, second = [tuple(row) for row in await database.pool.fetch(used)]
    assert first[0] == 1
    assert second[0] == 2
    assert second[1] >= 2_000
    assert second[2] >= 200
    assert (await verify_log(database)).intact
    size = "SELECT avg(length(payload)) FROM event_log WHERE codec = $1"
    before, after = [await database.pool.fetchval(size, number) for number in (1, 2)]
    assert after < before


async def test_too_little_traffic_is_said(log: EventLog) -> None:
    with pytest.raises(NotEnoughTraffic, match="a dictionary needs 200"):
        await train_on_log(log)


def test_no_number_or_id_of_a_call_gets_into_a_dictionary() -> None:
    payloads = samples(3_000)
    personal = {found[0] for sample in payloads for found in PERSONAL.finditer(sample.payload)}
    numbers = {re.sub(rb"\D", b"", one) for one in personal}
    plain = zstandard.train_dictionary(100_000, [sample.payload for sample in payloads]).as_bytes()
    assert sum(number in plain for number in numbers) > 50  # what training as usual would keep for ever
    training = train(payloads, Codec(1, first_dictionary()))
    assert not [number for number in numbers if number in training.dictionary]
    assert training.bytes_after < training.bytes_before
