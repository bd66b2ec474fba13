"""Handler, queue and settler against a small model, with faults between and within the steps.

Hypothesis makes the schedules. Nothing runs by itself: each rule is one step (a request, a turn of the queue,
a round of the settler, a notification that arrives, time that passes), on a real Postgres and beside a
simulated GWS. A step ends when what it brings about is a fact, and no lease, window or time-out ends but by
the step in which time passes, so that a machine's load changes nothing. The model knows when a request must
reach GWS, and predicts it exactly; what GWS then did, the simulator knows; and what is on record must fit
both after every step.
"""

from __future__ import annotations

import asyncio

import pytest
from crashing_process import ANSWERED, BEFORE, CONNECTED, DURABLE, SENT, SETTLING, UNSENT
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.engine import URL
from transfer_model import world
from transfer_schedule import ANOTHER, ITSELF, Schedule

from service.transfers import State

LENGTH = 24  # steps of a schedule at most


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("schedules", "number"), [(30, 4), pytest.param(1_000, 2, marks=pytest.mark.long)])
def test_whatever_happens_the_record_is_true(database_url: URL, schedules: int, number: int) -> None:
    with asyncio.Runner() as runner:
        opened = world(database_url)
        Schedule.world, Schedule.runner = runner.run(opened.__aenter__()), runner
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                seed(number)(Schedule),
                settings=settings(
                    max_examples=schedules,
                    stateful_step_count=LENGTH,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                ),
                _min_steps=LENGTH // 2,
            )
        finally:
            tally = Schedule.world.tally
            runner.run(opened.__aexit__(None, None, None))
    print(f"\n{schedules} schedules: {dict(sorted(tally.items()))}")  # noqa: T201 the counts are the result
    for crash in (BEFORE, UNSENT, CONNECTED, SENT, ANSWERED, DURABLE, SETTLING):
        assert tally[f"crash {crash}"] >= schedules // 60, crash
    for slow in (ITSELF, ANOTHER):
        assert tally[f"slow: {slow}"] >= schedules // 60, slow
    assert sum(tally[state] for state in State) >= schedules
