"""The steps of a schedule in which transfers are settled: time, evidence, and people."""

from __future__ import annotations

from crashing_process import NEVER, SETTLING, Crash
from hypothesis import strategies as st
from hypothesis.stateful import rule
from transfer_model import Modelled

from service.events import NotificationReceived, encode, stream_of_notification
from service.log import NewEvent, Producer
from service.transfers import Abandon, Finding, Settle, State

EXPIRE = "UPDATE transfer_work SET due_at = now() - interval '1 hour'"


class Settling(Modelled):
    """The steps that send nothing."""

    @rule()
    def time_passes(self) -> None:
        """Claims and settle windows are over."""
        for call in self.calls:
            self.run(self._expire(call.call_id))
            for one in call.transfers:
                one.claim_over = one.phase == "unanswered"

    async def _expire(self, call_id: str) -> None:
        await self.world.database.pool.execute(f"{EXPIRE} WHERE call_id = $1", call_id)

    @rule(crash=st.sampled_from((NEVER, NEVER, SETTLING)))
    def settle(self, crash: str = NEVER) -> None:
        """The settler makes its rounds, perhaps its successor goes on; a claim that is over is taken over."""
        self.plan.crash = crash
        try:
            self.run(self._settle())
        except Crash:
            self.world.tally[f"crash {SETTLING}"] += 1
            self.restart()
            self.run(self._settle())
        self.plan.crash = NEVER
        for one in (one for call in self.calls for one in call.transfers if one.claim_over):
            one.phase, one.claim_over = "answered", False
            self.world.tally["taken over"] += 1

    async def _settle(self) -> None:
        """Rounds until all is taken over: of two of a call that move at once one waits for the next round."""
        left = True
        while left:
            self.seen = await self.settler.look(self.seen)
            transfers = [(call, one) for call in self.calls for one in await self._transfers(call)]
            left = any(
                transfer.state is State.DISPATCHED and self._expected(call, transfer).claim_over
                for call, transfer in transfers
            )

    @rule(which=st.integers(0, 30), times=st.sampled_from((1, 1, 1, 0, 2)))
    def notify(self, which: int, times: int) -> None:
        """A notification arrives, late, twice, out of turn, or never."""
        published = self.world.simulator.truth.published
        if published:
            self.run(self._deliver(which % len(published), times))

    @rule()
    def notify_all(self) -> None:
        while self.world.simulator.truth.published:
            self.run(self._deliver(0, 1))

    async def _deliver(self, place: int, times: int) -> None:
        message = self.world.simulator.truth.published.pop(place)
        for _ in range(times):
            event = NotificationReceived(
                session=self.session, agent=message.agent, count=self.delivered, channel=message.channel
            )
            new = NewEvent(
                Producer(self.session).event_id(self.delivered),
                stream_of_notification(message.body, self.session),
                event.kind(),
                encode(event, message.body),
            )
            await self.world.log.append([new])
            self.delivered += 1

    @rule(happened=st.sampled_from((True, False, None)))
    def person(self, *, happened: bool | None) -> None:
        """A person settles one that is in doubt, rightly or wrongly, or gives it up."""
        self.run(self._person(happened=happened))

    async def _person(self, *, happened: bool | None) -> None:
        for call in self.calls:
            for transfer in await self._transfers(call):
                if transfer.state is State.IN_DOUBT:
                    decision = (
                        Abandon(transfer.id, "WillardC", "nobody knows")
                        if happened is None
                        else Settle(transfer.id, Finding(happened, "word", (), "WillardC", "asked"))
                    )
                    await self.handler.settle(transfer.id, decision)
                    self._expected(call, transfer).by_person = True
                    self.world.tally["settled by a person"] += 1
                    return
