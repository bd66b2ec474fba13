from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.projections.pages import KEPT, Pages
from service.projections.reading import Page


class Log:
    """A log of `length` events, and how often which pages of it were read."""

    def __init__(self, length: int) -> None:
        self.next_position = length
        self.read: list[tuple[int, int]] = []
        self.fault: Exception | None = None

    async def beyond(self, position: int, *, timeout_s: float | None = None) -> bool:  # noqa: ARG002 the watch's
        return self.next_position > position + 1

    async def page(self, after: int, upto: int) -> Page:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        page = Page(after, min(upto, self.next_position - 1), [], [])
        self.read.append((page.after, page.upto))
        return page


def pages_of(log: Any) -> Pages:
    return Pages(log, log, 10)


async def follow(pages: Pages, position: int) -> list[int]:
    """Where the pages end, to the log's end."""
    ends = []
    while page := await pages.after(position, within_s=0):
        ends.append(position := page.upto)
    return ends


async def test_all_who_keep_up_take_the_same_pages() -> None:
    log = Log(35)
    pages = pages_of(log)
    assert await asyncio.gather(*(follow(pages, -1) for _ in range(3))) == [[9, 19, 29, 34]] * 3
    assert log.read == [(-1, 9), (9, 19), (19, 29), (29, 34)]


async def test_one_who_is_behind_joins_the_others_where_their_page_begins() -> None:
    log = Log(35)
    pages = pages_of(log)
    assert await follow(pages, 17) == [27, 34]
    assert await follow(pages, 4) == [14, 17, 27, 34]
    assert log.read == [(17, 27), (27, 34), (4, 14), (14, 17)]


async def test_few_pages_are_kept() -> None:
    log = Log(1_000)
    pages = pages_of(log)
    await follow(pages, -1)
    read = len(log.read)
    await follow(pages, 999 - KEPT * 10)
    assert len(log.read) == read
    await follow(pages, 999 - (KEPT + 1) * 10)
    assert len(log.read) <= read + 2


async def test_a_page_that_could_not_be_read_is_tried_again() -> None:
    log = Log(5)
    log.fault = OSError("gone")
    pages = pages_of(log)
    with pytest.raises(OSError, match="gone"):
        await pages.after(-1, within_s=0)
    log.fault = None
    assert await follow(pages, -1) == [4]
    await pages.stop()
