"""The pages of the log that those who follow it share.

A page begins where the one before has ended, so all who keep up take the same ones. One who has fallen behind
reads pages of his own, none beyond the beginning of one that is shared, so that he joins the others there.
"""

from __future__ import annotations

import asyncio

from service.log.watch import HeadWatch
from service.projections.reading import Page, Reader

BREATH_S = 0.02  # while less than a page waits, so that one transaction takes in what many writers bring
KEPT = 6  # pages: by so many may one be behind another and still share


class Pages:
    """Reads pages of at most `size` positions, each once for all."""

    def __init__(self, watch: HeadWatch, reader: Reader, size: int) -> None:
        self._watch = watch
        self._reader = reader
        self._size = size
        self._kept: dict[int, asyncio.Task[Page]] = {}  # by the position after which it begins

    async def after(self, position: int, *, within_s: float) -> Page | None:
        """The page that begins after `position`; None if nothing is there `within_s`."""
        if position not in self._kept:
            if not await self._watch.beyond(position, timeout_s=within_s):
                return None
            if self._watch.next_position - position <= self._size:
                await asyncio.sleep(BREATH_S)
        reading = self._kept.get(position)
        if reading is None:
            reading = self._kept[position] = asyncio.create_task(self._read(position))
            self._forget_the_oldest()
        page = await asyncio.shield(reading)
        return page if page.upto > position else None

    async def _read(self, position: int) -> Page:
        shared = [begin for begin in self._kept if begin > position]
        upto = position
        try:
            page = await self._reader.page(position, min([position + self._size, *shared]))
            upto = page.upto
        finally:
            if upto == position:
                self._kept.pop(position, None)  # to be tried again
        return page

    def _forget_the_oldest(self) -> None:
        read = sorted(begin for begin, reading in self._kept.items() if reading.done())
        for begin in read[: max(0, len(self._kept) - KEPT)]:
            del self._kept[begin]

    async def stop(self) -> None:
        """Read no further."""
        for reading in self._kept.values():
            reading.cancel()
        await asyncio.gather(*self._kept.values(), return_exceptions=True)
