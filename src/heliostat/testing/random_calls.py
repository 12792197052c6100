"""A provider against a dictionary: any calls in any order, crashes and restarts among them. Needs Hypothesis.

The dictionary holds what must be in the backend: wanted, ending, or over by itself. After every call the
listing has to agree with it; at the end nothing is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from heliostat.model.instance import BackendState, Change, LaunchRequest
from heliostat.ports.provider import Outcome
from heliostat.testing.subject import OURS, OVER, Rows, Subject, is_over

T = TypeVar("T")

SHRINKS_FROM = 50
"""A failure is made smaller only where so many examples are cheap: that takes hundreds more."""
MOST_AT_ONCE = 4
CUT_SHORT_AFTER = 8


class Expected(Enum):
    """What the dictionary says of an instance."""

    WANTED = "wanted"
    ENDING = "ending"
    OVER = "over"


STATES = {
    Expected.WANTED: frozenset({BackendState.QUEUED, BackendState.STARTING, BackendState.RUNNING}),
    Expected.ENDING: OVER | {BackendState.STOPPING},
    Expected.OVER: OVER,
}


def try_random_calls(kit: Subject, folder: Path) -> None:
    """Run as many sequences as the kit says; each has a folder of its own."""
    phases = [one for one in Phase if one is not Phase.shrink or kit.machine_examples >= SHRINKS_FROM]
    run_state_machine_as_test(
        type("RandomCalls", (RandomCalls,), {"kit": kit, "folder": folder}),
        settings=settings(
            max_examples=kit.machine_examples,
            stateful_step_count=kit.machine_steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


class RandomCalls(RuleBasedStateMachine):
    """One sequence of calls."""

    kit: ClassVar[Subject]
    folder: ClassVar[Path]
    sequences: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).sequences += 1
        self.place = self.folder / str(self.sequences)
        self.place.mkdir()
        self.kit.lives = []
        self.runner = asyncio.Runner()
        self.native_ids: dict[str, str] = {}
        self.expected: dict[str, Expected] = {}
        self.requests: dict[str, LaunchRequest] = {}
        self.provider = self.kit.make(self.place, OURS)

    # Launches.

    @precondition(lambda self: self.room() >= 1)
    @rule(count=st.integers(1, 2))
    def launch(self, count: int) -> None:
        request = self.new_request(min(count, self.room()))
        self.apply(Change(launch=(request,)))

    @precondition(lambda self: self.whole_launches())
    @rule(data=st.data())
    def launch_again(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(self.whole_launches()))]
        self.apply(Change(launch=(request,)))

    @precondition(lambda self: self.room() >= 1)
    @rule(steps=st.integers(0, CUT_SHORT_AFTER))
    def launch_crash_and_ask_again(self, steps: int) -> None:
        request = self.new_request(1)
        self.crash(Change(launch=(request,)), steps)
        self.apply(Change(launch=(request,)))

    @precondition(lambda self: self.room() >= 1)
    @rule(steps=st.integers(0, CUT_SHORT_AFTER))
    def launch_cancel_and_ask_again(self, steps: int) -> None:
        request = self.new_request(1)
        self.cancel(Change(launch=(request,)), steps)
        self.apply(Change(launch=(request,)))

    # Ends.

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), steps=st.none() | st.integers(0, CUT_SHORT_AFTER), crashes=st.booleans())
    def terminate(self, data: st.DataObject, steps: int | None, crashes: bool) -> None:
        """Terminate, perhaps only after an attempt that was cut short."""
        instance_id = data.draw(st.sampled_from(sorted(self.expected)))
        change = Change(terminate=(instance_id,))
        self.expected[instance_id] = Expected.ENDING
        if steps is not None:
            (self.crash if crashes else self.cancel)(change, steps)
        self.apply(change)

    @rule()
    def terminate_what_never_was(self) -> None:
        self.apply(Change(terminate=("lnever1.0", "")))

    @precondition(lambda self: self.can_break() and Expected.WANTED in self.expected.values())
    @rule(data=st.data())
    def break_one(self, data: st.DataObject) -> None:
        wanted = sorted(key for key, what in self.expected.items() if what is Expected.WANTED)
        instance_id = data.draw(st.sampled_from(wanted))
        rows = self.run(self.kit.running(self.provider, instance_id))
        self.run(self.kit.break_instance(self.place, rows[instance_id]))
        self.run(self.kit.wait_until(self.provider, lambda rows: is_over(rows, instance_id)))
        self.expected[instance_id] = Expected.OVER

    # The controller, and time.

    @rule()
    def restart(self) -> None:
        self.run(self.provider.aclose())
        self.provider = self.kit.make(self.place, OURS)

    @rule()
    def settle(self) -> None:
        self.run(self.kit.wait_until(self.provider, self.is_settled))

    @invariant()
    def agrees(self) -> None:
        """The listing has all that is wanted and nothing that is not, each in a state that it may have."""
        rows = self.run(self.kit.wait_until(self.provider, self.has_all_that_stays))
        for key in [key for key, what in self.expected.items() if what is Expected.ENDING]:
            if key not in rows:
                del self.expected[key]
        assert set(rows) == set(self.expected)
        for key, row in rows.items():
            assert row.state in STATES[self.expected[key]], f"{key} is {row.state}, {self.expected[key]}"
            if not self.kit.doubles_gone_s:
                assert self.native_ids.setdefault(key, row.native_id) == row.native_id, f"{key} is another"

    def teardown(self) -> None:
        try:
            self.run(self.kit.clean_up(self.place))
            self.run(self.kit.one_of_each(self.provider, self.place, ()))
            self.run(self.provider.aclose())
        finally:
            self.runner.close()

    # What the rules are made of.

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(self.kit.deadline_s):
                return await call

        return self.runner.run(bounded())

    def new_request(self, count: int) -> LaunchRequest:
        request = self.kit.request(f"lrandom{len(self.requests)}", count)
        self.requests[request.launch_id] = request
        self.expected.update(dict.fromkeys(request.instance_ids, Expected.WANTED))
        return request

    def apply(self, change: Change) -> None:
        assert self.run(self.provider.apply(change)) == Outcome()

    def crash(self, change: Change, steps: int) -> None:
        self.run(self.provider.aclose())
        doomed = self.kit.make(self.place, OURS)

        async def crash() -> None:
            await self.kit.life().crash(doomed.apply(change), after=steps)

        self.run(crash())
        self.provider = self.kit.make(self.place, OURS)

    def cancel(self, change: Change, steps: int) -> None:
        async def cancel() -> None:
            await self.kit.life().cancel(self.provider.apply(change), after=steps)

        self.run(cancel())

    def room(self) -> int:
        return (self.kit.capacity or MOST_AT_ONCE) - len(self.expected)

    def whole_launches(self) -> list[str]:
        """Return the launches of which every member is wanted still: others are never asked for again."""
        return sorted(
            key
            for key, request in self.requests.items()
            if all(self.expected.get(one) is Expected.WANTED for one in request.instance_ids)
        )

    def can_break(self) -> bool:
        return type(self.kit).break_instance is not Subject.break_instance

    def has_all_that_stays(self, rows: Rows) -> bool:
        return all(key in rows for key, what in self.expected.items() if what is not Expected.ENDING)

    def is_settled(self, rows: Rows) -> bool:
        wanted = {key for key, what in self.expected.items() if what is Expected.WANTED}
        stays = {key for key, what in self.expected.items() if what is not Expected.ENDING}
        return set(rows) == stays and all(rows[key].state is BackendState.RUNNING for key in wanted)
