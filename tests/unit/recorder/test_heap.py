from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from service.recorder.heap import Heap


class Ring:
    """Something that only the garbage collector can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Each test begins with nothing to collect, and leaves the collector as it was."""
    gc.collect()
    yield
    gc.enable()


def dropped() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


def test_with_few_sessions_the_collector_is_left_alone() -> None:
    heap = Heap(lambda: Heap.MANY - 1)
    heap.look()
    assert gc.isenabled()


def test_sessions_that_come_account_for_what_memory_grows_by() -> None:
    sessions = Heap.MANY
    heap = Heap(lambda: sessions)
    heap.look()
    assert not gc.isenabled()
    garbage = dropped()
    grown = [[] for _ in range(sys.getallocatedblocks())]  # twice as many blocks
    sessions += 1
    heap.look()
    assert garbage() is not None
    heap.look()
    assert garbage() is not None
    del grown


def test_what_grows_without_sessions_is_searched_for_garbage() -> None:
    sessions = Heap.MANY
    heap = Heap(lambda: sessions)
    heap.look()
    garbage = dropped()
    heap.look()
    assert garbage() is not None, "nothing has grown"
    rings = [Ring() for _ in range(sys.getallocatedblocks())]
    del rings
    sessions = 3  # that others have gone does not matter
    heap.look()
    assert garbage() is None
    assert not gc.isenabled()


async def test_at_its_end_the_collector_is_python_s_again() -> None:
    heap = Heap(lambda: Heap.MANY)
    heap.loop.start()
    async with asyncio.timeout(30):
        await heap.loop.ready.wait()
    assert not gc.isenabled()
    await heap.loop.stop()
    assert gc.isenabled()
