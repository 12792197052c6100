"""The controller: one round after another, level-triggered.

A round looks at the whole world as it is now, asks the planner what should differ,
writes it down, and only then acts. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from dataclasses import replace

import structlog

from heliostat.control.accounts import Accounts
from heliostat.control.act import BackendActor
from heliostat.control.answers import answer, failed_launches, refused
from heliostat.control.claims import Claims
from heliostat.control.drainer import Drainer
from heliostat.control.follow_up import asked_again, follow_ups, letting_go
from heliostat.control.idle_watch import IdleWatch
from heliostat.control.ledger import Ledger
from heliostat.control.lifetimes import lifetimes
from heliostat.control.memory import Memory
from heliostat.control.ray_words import RAY_DECIDES
from heliostat.control.record import Forms, Recorded, adopted, record
from heliostat.control.round_report import round_report
from heliostat.control.start_document import as_planned, launch_request
from heliostat.control.status import Scene, cluster_is_used
from heliostat.control.tombstones import Tombstones
from heliostat.control.transitions import changed_since, round_events, start_times
from heliostat.control.watch import BackendWatch
from heliostat.control.wiring import BAD_ROUNDS_AT_MOST, Identity, Ports, Timing
from heliostat.model.history import History
from heliostat.model.instance import (
    Change,
    InstanceIntent,
    LaunchRequest,
    Offer,
    OfferQuery,
)
from heliostat.model.node_type import ClusterSpec, Policy
from heliostat.model.plan import Launch, Plan, Reason, Release, Why
from heliostat.model.snapshot import BackendView, RayState, Snapshot, join
from heliostat.planner import fold, plan
from heliostat.ports.cluster import RoundReport
from heliostat.ports.errors import (
    ClusterError,
    ClusterUnreachable,
    StrangerCluster,
    TokenRefused,
)
from heliostat.ports.journal import Event
from heliostat.ports.provider import Outcome

log = structlog.get_logger(__name__)

UNDER_WAY_S = 5.0
UNDER_WAY = "the last request to this backend is still under way"


class Controller:
    """Runs one cluster until it is told to go down or its head is lost for good.

    `phase` is what `status` shows. `run()` returns when every instance is gone after
    `go_down()`, after the head stayed away for `spec.head_timeout_s`, or after it turned
    out to be a stranger's.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        spec: ClusterSpec,
        identity: Identity,
        timing: Timing,
        idle_after_s: float | None = None,
    ) -> None:
        self.ports = ports
        self.spec = spec
        self.identity = identity
        self.timing = timing
        self.phase = "starting"
        self.session_name = ""
        journal = ports.journal
        self.memory = Memory.of(journal, now_s=ports.clock.now_s())
        self.watches = {
            name: BackendWatch(provider, clock=ports.clock, telemetry=ports.telemetry, timing=timing)
            for name, provider in ports.providers.items()
        }
        self.ledger = Ledger(journal, clock=ports.clock, telemetry=ports.telemetry)
        self.actors = {name: self._actor(name) for name in ports.providers}
        now_s = ports.clock.monotonic_s()
        self.started_s = now_s
        self._ray_seen_s = now_s
        self._beat_s = self._history_s = float("-inf")
        self._history_written = self.memory.history
        self.accounts = Accounts(journal, every_s=timing.usage_s)
        self._claims = Claims(ports.cluster)
        self._tombstones = Tombstones(
            self.memory, ports.providers, message_timeout_s=timing.message_timeout_s
        )
        self._drainer = Drainer(
            ports.cluster, self.memory, ask_again_s=timing.ask_again_s, say=self._say_of_instance
        )
        self.idle_watch = IdleWatch(idle_after_s)
        self._going_down: str | None = None
        self._down_since_s = 0.0
        self._round_lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None
        self.use_spec(spec)

    def _actor(self, name: str) -> BackendActor:
        return BackendActor(
            self.ports.providers[name],
            clock=self.ports.clock,
            telemetry=self.ports.telemetry,
            timing=self.timing,
            ledger=self.ledger,
            on_answer=functools.partial(self._answered, name),
        )

    # -- what operations may call ------------------------------------------------

    @property
    def policy(self) -> Policy:
        return self.spec.policy

    @property
    def going_down(self) -> str | None:
        """Why the cluster goes down, or None."""
        return self._going_down

    def use_spec(self, spec: ClusterSpec) -> None:
        """Take a changed cluster file: limits count from the next round on."""
        self.spec = spec
        for name, watch in self.watches.items():
            watch.queries = [
                OfferQuery(one, one.max_workers) for one in spec.policy.node_types if one.backend == name
            ]
            watch.poke()

    async def settled(self, backend: str) -> None:
        """Wait for the change that is under way at a backend, and list it: what is offered is true then."""
        await self.actors[backend].settle()
        await self.watches[backend].look()

    def go_down(self, why: str) -> None:
        """Release everything; `run()` returns when all is gone. Calling it again changes nothing."""
        if self._going_down is None:
            self._going_down = why
            self._down_since_s = self.ports.clock.monotonic_s()
            self.phase = "going down"
            self.event("down", why)
            self._wake.set()

    def event(self, kind: str, text: str, *, instance_id: str = "", node_type: str = "") -> None:
        """Note one event for the journal, and write it to the log."""
        log.info(text, kind=kind, instance=instance_id or None)
        event = Event(self.ports.clock.now_s(), kind, text, instance_id, node_type)
        self.ports.journal.record_events([event])

    def _say_of_instance(self, kind: str, text: str, instance_id: str) -> None:
        self.event(kind, text, instance_id=instance_id)
        self._wake.set()

    # -- the loop ---------------------------------------------------------------

    async def run(self) -> None:
        watching = [asyncio.create_task(watch.run()) for watch in self.watches.values()]
        try:
            await self._rounds(watching)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            for actor in self.actors.values():
                await actor.settle()
            self._flush()

    async def _rounds(self, watching: Sequence[asyncio.Task[None]]) -> None:
        bad_rounds = 0
        while not self._finished():
            for task in (*watching, *(actor.task for actor in self.actors.values())):
                if task is not None and task.done():
                    # What died of an error that nobody foresaw would leave us blind: start afresh.
                    task.result()
            try:
                await self.round()
                bad_rounds = 0
            except Exception:
                # The loop's guard: one bad round is logged and the next one looks afresh;
                # many in a row mean that this process is broken, so the wrapper gets it.
                bad_rounds += 1
                log.exception("round failed", in_a_row=bad_rounds)
                if bad_rounds >= BAD_ROUNDS_AT_MOST:
                    raise
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timing.round_s):
                await self._wake.wait()
        self._wake.clear()

    async def round(self) -> None:
        """Observe, decide, record, act, report: once."""
        async with self._round_lock:
            began_s = self.ports.clock.monotonic_s()
            snapshot = self._adopting(self._snapshot(await self._ray_state()))
            history = fold(self.memory.history, snapshot, self.policy)
            self._decide(snapshot, history)
            recorded = self._record(snapshot, history)
            await self._act(recorded)
            self.accounts.add(
                self.memory.instances,
                policy=self.policy,
                prices=history.prices,
                wall_s=snapshot.now_s + self.ports.clock.host_time().ahead_s,
                monotonic_s=self.ports.clock.monotonic_s(),
            )
            self._report()
            await self._watch_idle()
            took_s = self.ports.clock.monotonic_s() - began_s
            self.ports.telemetry.observe("round_ms", took_s * 1000)

    # -- observe ----------------------------------------------------------------

    async def _ray_state(self) -> RayState | None:
        began_s = self.ports.clock.monotonic_s()
        try:
            if not self.session_name or self.phase == "head lost":
                await self.ports.cluster.connect()
            state = await self.ports.cluster.state()
            await self._greet(state)
            await self._beat(self.ports.clock.monotonic_s())
        except (ClusterUnreachable, TokenRefused) as error:
            self._head_silent(error)
            return None
        except StrangerCluster as error:
            self.go_down(str(error))
            return None
        now_s = self.ports.clock.monotonic_s()
        self._ray_seen_s = now_s
        self.ports.telemetry.observe("gcs_ms", (now_s - began_s) * 1000)
        return state

    async def _greet(self, state: RayState) -> None:
        """On first contact, and after a silence, take the session and tell Ray what could be."""
        if self.session_name == state.session_name and self.phase not in ("starting", "head lost"):
            return
        self.session_name = state.session_name
        await self.ports.cluster.report_config(self.policy, self.spec.head_type)
        if self._going_down is None:
            self.event("head", f"the head answers, session {state.session_name}")
            self.phase = "running"
            if self.policy.ray_decides:
                self.event("autoscaler", RAY_DECIDES)

    def _head_silent(self, error: ClusterError) -> None:
        silent_s = self.ports.clock.monotonic_s() - self._ray_seen_s
        if self.phase == "running":
            self.phase = "head lost"
            self.event(
                "head",
                f"the head does not answer ({error}); waiting for it up to {self.spec.head_timeout_s:.0f} s",
            )
        if silent_s > self.spec.head_timeout_s and self._going_down is None:
            self.event("head", f"the head has been silent for {silent_s:.0f} s: everything is released")
            self.go_down("the head is lost")

    async def tell_ray_what_could_be(self) -> None:
        """Report the policy to Ray (Data and Train read it); a silent head is told at its return."""
        try:
            await self.ports.cluster.report_config(self.policy, self.spec.head_type)
        except ClusterError as error:
            log.warning("config not heard", error=str(error))

    async def _beat(self, now_s: float) -> None:
        if now_s - self._beat_s >= self.timing.heartbeat_s:
            self._beat_s = now_s
            await self.ports.cluster.heartbeat()

    def _snapshot(self, ray: RayState | None) -> Snapshot:
        return Snapshot(
            now_s=self.ports.clock.now_s(),
            ray=ray,
            backends={name: self._view(name) for name in self.watches},
            intents=self._intents(),
            operator=self.memory.settings(),
            drains={key: one.why for key, one in self.memory.drains.items()},
            refused=frozenset(key for key, one in self.memory.drains.items() if one.text),
            utc_offset_s=self.ports.clock.utc_offset_s(),
            host=self.ports.clock.host_time(),
            asked=self.memory.asked_by_ray(),
        )

    def _intents(self) -> tuple[InstanceIntent, ...]:
        return tuple(self.memory.intents[key] for key in sorted(self.memory.intents))

    def _view(self, name: str) -> BackendView:
        """Return the backend's last listing, with refused launches in it and no stale offers."""
        watch, memory, actor = self.watches[name], self.memory, self.actors[name]
        unseen = self._tombstones.unseen(name, watch.view)
        view = replace(watch.view, asking=actor.asking(watch.view.listed_at_s), unseen=unseen)
        listed = {row.instance_id for row in view.rows}
        failed = (row for row in memory.refused_rows(name) if row.instance_id not in listed)
        view = replace(view, rows=(*view.rows, *failed), answers=memory.answers.get(name, ()))
        if actor.busy_s() > UNDER_WAY_S:
            # Nothing may be called lost while the ask for it is still on its way.
            view = replace(view, fresh=False, under_way=view.fresh, error=view.error or UNDER_WAY)
        if actor.busy or watch.offers_from_s < memory.changed.get(name, float("-inf")):
            types = [one.name for one in self.policy.node_types if one.backend == name]
            view = replace(view, offers=tuple(Offer(one, 0, why=UNDER_WAY) for one in types))
        return view

    def _adopting(self, snapshot: Snapshot) -> Snapshot:
        """Take in running instances of ours that the journal does not know."""
        strangers = tuple(
            adopted(row, backend=name, now_s=snapshot.now_s)
            for name, view in snapshot.backends.items()
            for row in view.rows
            if row.instance_id not in self.memory.intents
        )
        if not strangers:
            return snapshot
        events = [
            Event(snapshot.now_s, "adopt", one.reason, one.instance_id, one.node_type) for one in strangers
        ]
        self.ports.journal.note_intents(strangers)
        self.ports.journal.record_events(events)
        self.memory.learn(strangers)
        return self._snapshot(snapshot.ray)

    # -- decide -----------------------------------------------------------------

    def _decide(self, snapshot: Snapshot, history: History) -> None:
        began_s = self.ports.clock.monotonic_s()
        memory = self.memory
        memory.snapshot, memory.instances = snapshot, join(snapshot)
        memory.plan = self._down_plan() if self._going_down else plan(snapshot, history, self.policy)
        took_s = self.ports.clock.monotonic_s() - began_s
        self.ports.telemetry.observe("plan_ms", took_s * 1000)

    def _down_plan(self) -> Plan:
        reason = Reason(Why.DOWN, self._going_down or "")
        return Plan(actions=tuple(Release(one.instance_id, reason) for one in self.memory.wanted()))

    # -- record -----------------------------------------------------------------

    def _record(self, snapshot: Snapshot, history: History) -> Recorded:
        memory, now_s = self.memory, self.ports.clock.now_s()
        forms = Forms(self.ports.ids.launch_id, self._request)
        recorded = record(memory.plan, now_s=now_s, policy=self.policy, intents=memory.intents, forms=forms)
        before, memory.history = memory.history, history
        # The history knows of them now. A round that failed ahead of this leaves them to the next.
        memory.answers.clear()
        self._flush_history()
        changed = changed_since(before, memory.instances)
        seen = round_events(before, history, changed, policy=self.policy, snapshot=snapshot)
        self.ports.journal.record_lifetimes(lifetimes(changed, history, now_s=now_s))
        views = {name: watch.view for name, watch in self.watches.items()}
        before_s = self.ports.clock.monotonic_s() - self.timing.ask_again_s
        recorded = recorded.with_changes(follow_ups(memory, views, before_s=before_s))
        recorded = asked_again(recorded, memory, policy=self.policy, request=self._request, now_s=now_s)
        recorded = replace(recorded, operator=memory.with_added(recorded.intents))
        idle = {name for name, actor in self.actors.items() if not actor.busy}
        recorded = self.ledger.write(recorded, seen, idle=idle)
        if self.ledger.trouble:
            memory.plan = memory.plan.without_launches()
        joined = set(history.joined_at) - set(before.joined_at)
        for backend in {memory.intents[one].backend for one in joined} & self.watches.keys():
            self.watches[backend].poke()  # Its last listing may say «queued» still.
        requested = {one.instance_id: one.requested_at_s for one in memory.intents.values()}
        for seconds in start_times(before, history, requested):
            self.ports.telemetry.observe("start_s", seconds)
        memory.answer_ray(snapshot.asked, recorded.intents)
        memory.learn(recorded.intents, recorded.operator)
        if recorded.intents:
            # Whoever asks between this round and the next is told of what has just been decided.
            memory.instances = join(replace(snapshot, intents=self._intents()))
        return recorded

    def _request(self, launch_id: str, action: Launch) -> LaunchRequest:
        node_type = self.policy.node_type(action.node_type)
        assert node_type is not None
        identity, session = self.identity, self.session_name
        request = launch_request(
            launch_id, action.count, node_type=node_type, spec=self.spec, identity=identity, session=session
        )
        return as_planned(request, action, self.memory.history)

    def _flush_history(self) -> None:
        now_s = self.ports.clock.monotonic_s()
        if self.memory.history != self._history_written and now_s - self._history_s >= self.timing.history_s:
            self._history_s, self._history_written = now_s, self.memory.history
            self.ports.journal.record_history(self.memory.history)

    # -- act --------------------------------------------------------------------

    async def _act(self, recorded: Recorded) -> None:
        memory, now_s = self.memory, self.ports.clock.monotonic_s()
        for name, change in recorded.changes.items():
            memory.asked.update(
                dict.fromkeys((*change.terminate, *map(letting_go, change.unthrottle)), now_s)
            )
            if name in self.actors:
                self.actors[name].submit(change)
        for drain in recorded.drains:
            self._drainer.submit(drain, now_s)
        await self._forget()

    def _answered(self, backend: str, change: Change, outcome: Outcome) -> None:
        """Hear a provider's answer; called by the backend's actor, on the loop's own thread."""
        self.memory.changed[backend] = self.ports.clock.monotonic_s()
        failed = failed_launches(change, outcome)
        for instance_id, error in failed.items():
            log.warning("launch refused", instance=instance_id, error=str(error))
        turned_down, now_s = refused(failed), self.ports.clock.now_s()
        unclear = {key: now_s for key in failed if key not in turned_down}
        self.memory.hear(backend, answer(change, failed), turned_down, unclear=unclear)
        for instance_id, error in outcome.failed_terminations.items():
            log.warning("terminate failed", instance=instance_id, error=str(error))
        self.watches[backend].poke()
        self._wake.set()

    async def _forget(self) -> None:
        """Drop tombstones of what has been absent from fresh listings for long enough."""
        gone = self._tombstones.over(self._listings())
        if gone:
            self.ports.journal.forget_intents(gone)
            self.memory.forget(gone)
            self._forget_requests(gone)
        answers = self.memory.snapshot is not None and self.memory.snapshot.ray is not None
        await self._claims.delete(gone, answers=answers)

    def _forget_requests(self, gone: list[str]) -> None:
        """Drop what people asked for instances that are no more."""
        old = self.memory.operator
        settings = old.without(gone)
        if settings != old:
            self.ports.journal.note_operator(settings)
            self.memory.operator = settings

    def _finished(self) -> bool:
        if self._going_down is None:
            return False
        waited_s = self.ports.clock.monotonic_s() - self._down_since_s
        there = self._tombstones.not_known_to_be_gone(self._listings())
        if waited_s > self.timing.wind_down_s:
            log.error("not all is known to be down", there=there)
            return True
        return not there

    def _listings(self) -> dict[str, BackendView]:
        """Return the listings that may tell an instance's end: none does while its backend is asked."""
        views = ((name, watch.view, self.actors[name].busy) for name, watch in self.watches.items())
        return {name: replace(view, fresh=False) if busy else view for name, view, busy in views}

    # -- account and report -----------------------------------------------------

    async def _watch_idle(self) -> None:
        """Let the whole cluster go once nobody has used it for as long as `up --idle-after` said."""
        now_s = self.ports.clock.monotonic_s()
        used = cluster_is_used(Scene(self.policy, self.memory, self.ports.clock.now_s()))
        # The last count may be seconds old: nobody who has just come is sent away.
        due = self.idle_watch.expired(now_s, used=used)
        if not used and (self.idle_watch.asks_for_drivers(now_s, self.timing.drivers_s) or due):
            try:
                self.idle_watch.drivers = await self.ports.cluster.drivers()
            except ClusterError:
                used = True
        if self.idle_watch.expired(now_s, used=used) and self._going_down is None:
            idle_s = self.idle_watch.idle_s(now_s)
            self.go_down(f"nobody has used the cluster for {idle_s:.0f} s (--idle-after)")

    def _report(self) -> None:
        # Ray keeps one report: where its own autoscaler decides, it is that one's.
        if self.policy.ray_decides or self.memory.snapshot is None or self.memory.snapshot.ray is None:
            return
        if self._reporting is not None and not self._reporting.done():
            return
        self._reporting = asyncio.create_task(self._tell_ray(round_report(self.memory)))

    async def _tell_ray(self, report: RoundReport) -> None:
        try:
            await self.ports.cluster.report(report)
        except ClusterError as error:
            log.warning("report not heard", error=str(error))

    def _flush(self) -> None:
        self.ports.journal.record_history(self.memory.history)
        self.accounts.flush()
        self.ledger.commit()
