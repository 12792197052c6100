"""Bugs of the loop: of what it observes, writes down, asks for, and forgets."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from heliostat.control import accounts, ledger, loop, tombstones
from heliostat.control.act import BackendActor
from heliostat.control.answers import rejection
from heliostat.control.drainer import Drainer
from heliostat.control.ledger import Ledger
from heliostat.control.loop import Controller
from heliostat.control.memory import Memory
from heliostat.control.record import Recorded
from heliostat.control.steady_clock import SteadyClock
from heliostat.control.tombstones import Tombstones
from heliostat.control.watch import BackendWatch
from heliostat.model.history import History
from heliostat.model.instance import Change, InstanceIntent, InstanceState, Intent, LaunchRequest
from heliostat.model.plan import Launch, Reason, Release, Why
from heliostat.model.snapshot import BackendView, RayState, Snapshot
from tests.unit.sim.mutants.mutant import Catalogue

LOOP = Catalogue()


@LOOP.mutant(seed=1, checks="known")
def a_round_is_not_written(patch: pytest.MonkeyPatch) -> None:
    """What a round decided is done and only noted, never written ahead."""

    def write(self: Ledger, recorded: Recorded, *_: object, **__: object) -> Recorded:
        self._journal.note_intents(recorded.intents)
        return recorded

    patch.setattr(Ledger, "write", write)


@LOOP.mutant(seed=24, checks="known")
def launches_though_the_disk_is_full(patch: pytest.MonkeyPatch) -> None:
    """Where the journal can't be written, launches go out all the same."""
    patch.setattr(ledger, "without_launches", lambda recorded: recorded)


@LOOP.mutant(seed=2, checks="given gone met")
def history_is_lost_each_round(patch: pytest.MonkeyPatch) -> None:
    """Each round begins with an empty history."""
    folds = loop.fold
    patch.setattr(loop, "fold", lambda _, *rest: folds(History(), *rest))


@LOOP.mutant(seed=3, checks="bounded")
def a_quiet_backend_is_listed_all_the_time(patch: pytest.MonkeyPatch) -> None:
    """Listings follow each other five times a second, whether something moves or not."""
    patch.setattr(BackendWatch, "next_wait", lambda self: setattr(self, "_wait_s", 0.2))


@LOOP.mutant(seed=238, checks="bounded")
def each_word_to_go_down_wakes(patch: pytest.MonkeyPatch) -> None:
    """A cluster that goes down already is woken by every further word of it."""
    goes = Controller.go_down

    def go(self: Controller, why: str) -> None:
        goes(self, why)
        self._wake.set()

    patch.setattr(Controller, "go_down", go)


@LOOP.mutant(seed=3, checks="gentle")
def time_is_up_for_who_works(patch: pytest.MonkeyPatch) -> None:
    """A node goes when the idle timeout has passed since it joined, whatever it does."""
    decides = Controller._decide

    def decide(self: Controller, snapshot: Snapshot, history: History) -> None:
        decides(self, snapshot, history)
        before_s = snapshot.now_s - self.policy.idle_timeout_s
        old = [
            one for one in self.memory.wanted() if history.joined_at.get(one.instance_id, before_s) < before_s
        ]
        more = tuple(Release(one.instance_id, Reason(Why.IDLE, "it has been there for long")) for one in old)
        self.memory.plan = replace(self.memory.plan, actions=(*self.memory.plan.actions, *more))

    patch.setattr(Controller, "_decide", decide)


@LOOP.mutant(seed=2, checks="gentle")
def a_working_node_is_ended_without_a_word(patch: pytest.MonkeyPatch) -> None:
    """With each launch a working node is told to end, and nothing of it is written."""
    acts = Controller._act

    async def act(self: Controller, recorded: Recorded) -> None:
        for name, change in dict(recorded.changes).items():
            working = [
                one.instance_id
                for one in self.memory.instances
                if one.intent.backend == name
                and one.intent.intent is Intent.WANTED
                and one.state is InstanceState.RUNNING
            ]
            if change.launch and working:
                recorded = recorded.with_changes({name: Change(terminate=(min(working),))})
        await acts(self, recorded)

    patch.setattr(Controller, "_act", act)


@LOOP.mutant(seed=2, checks="gone")
def drains_are_never_sent(patch: pytest.MonkeyPatch) -> None:
    """What the planner wants drained is written down, and Ray is not asked."""
    patch.setattr(Drainer, "submit", lambda *_: None)


@LOOP.mutant(seed=1, checks="bounded")
def rounds_leave_no_pause(patch: pytest.MonkeyPatch) -> None:
    """A round begins as soon as the one before it has ended."""
    patch.setattr(Controller, "_pause", lambda _: asyncio.sleep(0))


@LOOP.mutant(seed=178, checks="given gone met")
def the_wall_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    """The controller's time is the host's wall clock, which is set by hours."""
    patch.setattr(SteadyClock, "now_s", lambda self: self._host.now_s())


@LOOP.mutant(seed=26, checks="known")
def nothing_is_adopted(patch: pytest.MonkeyPatch) -> None:
    """Listed instances that the journal does not know are not taken in."""
    patch.setattr(Controller, "_adopting", lambda _, snapshot: snapshot)


@LOOP.mutant(seed=6, checks="given known limits lost down forgotten")
def a_restart_forgets(patch: pytest.MonkeyPatch) -> None:
    """A new controller begins without the intents of the one before it, and asks anew for what it lacks."""
    begins = Controller.__init__

    def begin(self: Controller, *args: object, **kwargs: object) -> None:
        begins(self, *args, **kwargs)  # type: ignore[arg-type]
        self.memory.intents.clear()

    patch.setattr(Controller, "__init__", begin)


@LOOP.mutant(seed=187, checks="lost gone known down")
def a_failed_listing_is_empty(patch: pytest.MonkeyPatch) -> None:
    """A listing that failed is taken for one without rows."""

    def failed(self: BackendWatch, _: Exception) -> None:
        self.view = BackendView((), self._clock.now_s(), True, None, self.view.offers)

    patch.setattr(BackendWatch, "_failed", failed)


@LOOP.mutant(seed=506, checks="lost")
def an_ask_under_way_is_overlooked(patch: pytest.MonkeyPatch) -> None:
    """A listing counts as fresh, and what it lacks as absent, though the ask for it is still on its way."""
    patch.setattr(loop, "UNDER_WAY_S", float("inf"))
    patch.setattr(BackendActor, "asking", lambda *_: frozenset())


@LOOP.mutant(seed=53, checks="gentle legal")
def a_silent_head_is_an_empty_one(patch: pytest.MonkeyPatch) -> None:
    """A GCS that does not answer is taken for a cluster without nodes and demand."""
    asks = Controller._ray_state

    async def ask(self: Controller) -> RayState | None:
        found = await asks(self)
        return found if found is not None or not self.session_name else RayState(0, self.session_name)

    patch.setattr(Controller, "_ray_state", ask)


@LOOP.mutant(seed=2, checks="limits known legal")
def the_next_listing_buries(patch: pytest.MonkeyPatch) -> None:
    """A released instance is dropped after the next listing, whether that shows it or not."""

    def over(intent: InstanceIntent, view: BackendView | None, **_: object) -> bool:
        listed_at_s = view.listed_at_s if view else 0.0
        return intent.released_at_s is not None and listed_at_s > intent.released_at_s

    patch.setattr(tombstones, "is_over", over)


@LOOP.mutant(seed=None, checks="down")
def down_waits_for_nothing_late(patch: pytest.MonkeyPatch) -> None:
    """A cluster is down when listings lack all of it, whatever may be on its way."""
    down = tombstones.is_down

    def at_once(
        intent: InstanceIntent, view: BackendView | None, *, unclear_s: float | None, late_s: float
    ) -> bool:
        return down(intent, view, unclear_s=None, late_s=late_s)

    patch.setattr(tombstones, "is_down", at_once)


@LOOP.mutant(seed=2, checks="limits gone down")
def a_release_is_asked_for_once(patch: pytest.MonkeyPatch) -> None:
    """What is listed still after its release is not asked to end again."""
    asks = loop.follow_ups

    def ask(*args: object, **kwargs: object) -> dict[str, Change]:
        found = asks(*args, **kwargs)  # type: ignore[arg-type]
        return {name: replace(change, terminate=()) for name, change in found.items()}

    patch.setattr(loop, "follow_ups", ask)


@LOOP.mutant(seed=19, checks="freed met")
def the_throttle_is_never_lifted(patch: pytest.MonkeyPatch) -> None:
    """An array that lets a few run at a time stays so when its type has come up."""
    asks = loop.follow_ups

    def ask(*args: object, **kwargs: object) -> dict[str, Change]:
        found = asks(*args, **kwargs)  # type: ignore[arg-type]
        return {name: replace(change, unthrottle=()) for name, change in found.items()}

    patch.setattr(loop, "follow_ups", ask)


@LOOP.mutant(seed=40, checks="gentle")
def a_refusal_of_ray_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A node that Ray will not let go is terminated in the round after."""
    decides = Controller._decide

    def decide(self: Controller, snapshot: Snapshot, history: History) -> None:
        decides(self, snapshot, history)
        refused = {key: one.text for key, one in self.memory.drains.items() if one.text}
        wanted = [one.instance_id for one in self.memory.wanted() if one.instance_id in refused]
        more = tuple(Release(one, Reason(Why.IDLE, refused[one])) for one in wanted)
        self.memory.plan = replace(self.memory.plan, actions=(*self.memory.plan.actions, *more))

    patch.setattr(Controller, "_decide", decide)


@LOOP.mutant(seed=222, checks="down forgotten")
def a_poked_watch_does_not_end(patch: pytest.MonkeyPatch) -> None:
    """A cancellation that comes just after a poke is lost, as in `asyncio.wait_for` of Python 3.11."""

    async def watch(self: BackendWatch) -> None:
        while True:
            await self.look()
            self.next_wait()
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s):
                        await self._poked.wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or not self._poked.is_set():
                    raise
                # Else the next timeout of an early Python 3.11 would bring it back.
                task.uncancel()
            self._poked.clear()

    patch.setattr(BackendWatch, "run", watch)


@LOOP.mutant(seed=51, checks="alone bounded")
def ray_is_asked_again_at_once(patch: pytest.MonkeyPatch) -> None:
    """A node that Ray keeps is to be drained again in the next round, and in each after it."""
    begins = Drainer.__init__

    def begin(self: Drainer, *args: object, **kwargs: object) -> None:
        begins(self, *args, **{**kwargs, "ask_again_s": 0.0})  # type: ignore[arg-type]

    patch.setattr(Drainer, "__init__", begin)


@LOOP.mutant(seed=7, checks="led")
def nobody_says_that_a_controller_lives(patch: pytest.MonkeyPatch) -> None:
    """The head's key-value store gets no heartbeat, so that workers take themselves for orphans."""

    async def beat(*_: object) -> None:
        return None

    patch.setattr(Controller, "_beat", beat)


@LOOP.mutant(seed=29, checks="limits known")
def no_answer_is_a_refusal(patch: pytest.MonkeyPatch) -> None:
    """A launch that was not answered counts as one that did not happen."""
    patch.setattr(loop, "refused", lambda failed: {key: rejection(one) for key, one in failed.items()})


@LOOP.mutant(seed=100, checks="down")
def down_is_over_when_all_is_asked_for(patch: pytest.MonkeyPatch) -> None:
    """`down` ends when everything has been told to go, whether it goes or not."""
    ends = Controller._finished

    def end(self: Controller) -> bool:
        return ends(self) or (self._going_down is not None and not self.memory.wanted())

    patch.setattr(Controller, "_finished", end)


@LOOP.mutant(seed=19, checks="bounded")
def memory_grows(patch: pytest.MonkeyPatch) -> None:
    """What was asked of instances that are gone for good is kept for ever."""

    def forget(self: Memory, instance_ids: list[str]) -> None:
        for one in instance_ids:
            self.intents.pop(one, None)

    patch.setattr(Memory, "forget", forget)


@LOOP.mutant(seed=6, checks="forgotten")
def nothing_is_ever_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was released stays in the journal when it has long been gone."""
    patch.setattr(Tombstones, "over", lambda *_: [])


@LOOP.mutant(seed=83, checks="wholes")
def gangs_are_asked_for_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """A gang's launch does not say that it has to come together."""
    means = loop.as_planned

    def planned(request: LaunchRequest, action: Launch, history: History) -> LaunchRequest:
        return replace(means(request, action, history), together=False)

    patch.setattr(loop, "as_planned", planned)


@LOOP.mutant(seed=45, checks="again")
def what_nobody_asked_for_is_lost(patch: pytest.MonkeyPatch) -> None:
    """What a controller wrote down and never asked for is not asked for by the next one."""
    patch.setattr(loop, "asked_again", lambda recorded, *_, **__: recorded)


@LOOP.mutant(seed=5, checks="usage")
def node_time_is_counted_thrice(patch: pytest.MonkeyPatch) -> None:
    """The accounts hold three times what ran."""
    counts = accounts.usage
    patch.setattr(accounts, "usage", lambda *args, **kwargs: counts(*args, **kwargs) * 3)
