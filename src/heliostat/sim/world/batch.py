"""A batch system: jobs queue, other users' jobs go first, arrays are throttled, time limits end them.

In the likeness of Slurm (docs/backends/slurm.md). One node type's instance takes one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from heliostat.model.instance import LaunchRequest
from heliostat.ports.errors import InvalidRequest, QuotaExceeded
from heliostat.ports.provider import ClusterIdentity
from heliostat.sim.scenario import BackendScenario
from heliostat.sim.world.backend import Backend, Ground
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Machine, Phase, machine_for

LARGEST_CPUS = 1024
"""No node has more."""

KILL_WAIT_S = 30.0
"""From TERM to KILL, as in scancel, a preemption and a time limit."""

RESERVED_AFTER_S = 60.0
"""Once a job that wants several nodes has waited so long, nothing behind it starts ahead of it."""

REQUEUE_S = (20.0, 120.0)
"""A requeued job waits at least so long (Slurm's BeginTime)."""

OTHERS_S = (20.0, 120.0)
"""How long other users' jobs take."""

NOTICE_PART = 0.1
"""Work is told of a time limit's end at most so large a part of it ahead."""


@dataclass(eq=False, slots=True)
class Array:
    """Tasks that were submitted as one. `throttle`: so many run at once until it is lifted."""

    array_id: int
    throttle: int | None = None
    running: int = 0

    @property
    def is_full(self) -> bool:
        return self.throttle is not None and self.running >= self.throttle


@dataclass(eq=False, slots=True)
class Job:
    """One allocation of `nodes`: a task of an array, a gang, or another user's (no members).

    `state` is Slurm's word. `eligible_s` is when the scheduler may start it. `ended_s`: when it was over.
    """

    job_id: int
    nodes: int
    submitted_s: float
    eligible_s: float
    members: list[Machine] = field(default_factory=list)
    array: Array | None = None
    state: str = "PENDING"
    started_s: float | None = None
    ended_s: float | None = None
    run_s: float = 0.0
    to_requeue: bool = False

    @property
    def is_pending(self) -> bool:
        return self.state == "PENDING"

    @property
    def is_throttled(self) -> bool:
        return self.is_pending and self.array is not None and self.array.is_full

    @property
    def is_over(self) -> bool:
        return self.ended_s is not None


ENDS: dict[Cause | None, str] = {
    Cause.RELEASED: "CANCELLED",
    Cause.DRAINED: "COMPLETED",
    Cause.ORPHANED: "COMPLETED",
    Cause.LEASE: "TIMEOUT",
    Cause.PREEMPTED: "PREEMPTED",
    Cause.DIED: "NODE_FAIL",
}
"""A job's last state by what ended it; FAILED for all else."""


class BatchBackend(Backend):
    """See the module. `jobs` has what is listed: what waits, runs, and has ended not long ago."""

    def __init__(self, scenario: BackendScenario, ground: Ground) -> None:
        super().__init__(scenario, ground)
        self.jobs: dict[int, Job] = {}
        self._queue: list[Job] = []
        self._of: dict[str, Job] = {}
        self._used = 0
        self._last_id = 0
        self._others = ground.dice.stream(f"others {scenario.name}")

    def open(self) -> None:
        super().open()
        for machine in self.strangers:
            self._last_id += 1
            now_s = self.agenda.now_s()
            job = Job(self._last_id, 0, now_s, now_s, [machine], state="RUNNING", started_s=now_s)
            self.jobs[job.job_id] = job
        self._begin_others()

    # -- what users ask ---------------------------------------------------------------

    def submit(self, request: LaunchRequest, identity: ClusterIdentity, indexes: Sequence[int]) -> None:
        """Take these members of a launch as one array, or as one allocation if they belong `together`.

        Submitting twice makes two of each: a batch system knows no launch ids. QuotaExceeded above the
        submit limit: nothing is taken then.
        """
        most = self.scenario.submitted_most
        if request.node_type.resources.units().get("CPU", 0) > LARGEST_CPUS:
            raise InvalidRequest("Requested node configuration is not available")
        if request.together and len(indexes) > self.scenario.machines:
            raise InvalidRequest("PartitionNodeLimit: it asks for more nodes than the partition has")
        if most is not None and self._submitted(identity.owner) + len(indexes) > most:
            raise QuotaExceeded("QOSMaxSubmitJobPerUserLimit", retry_after_s=10.0)
        throttle = None if request.together else request.at_once
        array = Array(self._last_id + 1, throttle)
        for some in [list(indexes)] if request.together else [[one] for one in indexes]:
            self._take(request, identity, some, array)
        self.agenda.after(0.0, self.schedule)

    def cancel(self, native_ids: Iterable[str], by: ClusterIdentity) -> None:
        """End at once what waits; what runs has TERM now and KILL after `KILL_WAIT_S`."""
        for machine in self._theirs(native_ids, by):
            if machine.phase is Phase.QUEUED:
                self._cancel_pending(self._of[machine.native_id])
            else:
                self._stop(machine, Cause.RELEASED)

    def terminate(self, native_ids: Iterable[str], by: ClusterIdentity) -> None:
        """Send TERM to the bootstraps; what has not started hears nothing."""
        for machine in self._theirs(native_ids, by):
            if machine.native_id in self.bootstraps:
                self.bootstraps[machine.native_id].term(Cause.RELEASED)

    def unthrottle(self, array_id: int) -> None:
        for job in self.jobs.values():
            if job.array is not None and job.array.array_id == array_id:
                job.array.throttle = None
        self.schedule()

    def listed(self) -> list[Job]:
        """Return jobs with members, whoever's, oldest first, those that ended `forgets_s` ago left out."""
        now_s, forgets_s = self.agenda.now_s(), self.scenario.forgets_s
        for job in [one for one in self.jobs.values() if one.ended_s is not None]:
            if job.ended_s is not None and now_s > job.ended_s + forgets_s:
                del self.jobs[job.job_id]
        return [job for job in self.jobs.values() if job.members]

    @property
    def free(self) -> int:
        return self.scenario.machines - self._used

    # -- jobs ---------------------------------------------------------------------------

    def _take(
        self, request: LaunchRequest, identity: ClusterIdentity, indexes: list[int], array: Array
    ) -> None:
        now_s = self.agenda.now_s()
        job = self._new_job(len(indexes), array=None if request.together else array)
        for rank, index in enumerate(indexes):
            task = f"{job.job_id}.{rank}" if request.together else f"{array.array_id}_{index}"
            machine = machine_for(request, index, identity, native_id=task, now_s=now_s)
            machine.allocation_id = str(job.job_id) if request.together else None
            job.members.append(machine)
            self._of[task] = job
            self.add(machine)

    def _new_job(self, nodes: int, *, array: Array | None = None) -> Job:
        self._last_id += 1
        now_s = self.agenda.now_s()
        eligible_s = now_s + self.chance.uniform(*self.scenario.queue_s)
        job = Job(self._last_id, nodes, now_s, eligible_s, array=array)
        self.jobs[job.job_id] = job
        self._queue.append(job)
        self.agenda.after(eligible_s - now_s, self.schedule)
        return job

    def schedule(self) -> None:
        """Start what may start, oldest first; what fits may overtake, but not for ever."""
        now_s = self.agenda.now_s()
        if self.is_shut:
            return
        for job in list(self._queue):
            if now_s < job.eligible_s or job.is_throttled:
                continue
            if job.nodes <= self.free:
                self._start(job)
            elif now_s - job.eligible_s > RESERVED_AFTER_S:
                break

    def opened(self) -> None:
        self.schedule()

    def _start(self, job: Job) -> None:
        self._queue.remove(job)
        self._used += job.nodes
        job.state, job.started_s = "RUNNING", self.agenda.now_s()
        if job.array is not None:
            job.array.running += 1
        if not job.members:
            self.agenda.after(job.run_s, self._ended, job)
        for machine in job.members:
            if self.scenario.lease_s is not None:
                machine.expires_s = job.started_s + self.scenario.lease_s
                machine.start = {**machine.start, "lease_warning_s": self._notice_s(self.scenario.lease_s)}
                self.agenda.after(self.scenario.lease_s + KILL_WAIT_S, self._kill, machine, Cause.LEASE)
            self.boot(machine, self.scenario.boot_s)

    def _notice_s(self, lease_s: float) -> float:
        wanted = 120.0 if self.scenario.notice_s is None else self.scenario.notice_s
        return min(wanted, lease_s * NOTICE_PART)

    def over(self, machine: Machine) -> None:
        super().over(machine)
        job = self._of[machine.native_id]
        if all(one.is_over for one in job.members) and not job.is_over:
            self._ended(job)

    def _ended(self, job: Job) -> None:
        """Let a job be over, or wait again with what it was if it is requeued."""
        self._used -= job.nodes if job.started_s is not None else 0
        if job.array is not None and job.started_s is not None:
            job.array.running -= 1
        if job.to_requeue:
            self._requeue(job)
        else:
            first = next((one.cause for one in job.members if one.cause is not Cause.DRAINED), Cause.DRAINED)
            job.state = ENDS.get(first, "FAILED")
            job.ended_s = self.agenda.now_s()
            if not job.members:
                del self.jobs[job.job_id]
        self.schedule()

    def _requeue(self, job: Job) -> None:
        """Let the same instances wait again: same job, same ids, a start from scratch."""
        now_s = self.agenda.now_s()
        job.state, job.started_s, job.to_requeue = "PENDING", None, False
        job.eligible_s = now_s + self.chance.uniform(*REQUEUE_S)
        job.members = [_afresh(one, now_s) for one in job.members]
        for machine in job.members:
            self.add(machine)
        self._queue.append(job)
        self.agenda.after(job.eligible_s - now_s, self.schedule)

    def _cancel_pending(self, job: Job) -> None:
        """Cancel what waits: a gang's job as a whole."""
        self._queue.remove(job)
        for machine in job.members:
            machine.cause = Cause.RELEASED
            self.over(machine)

    def _theirs(self, native_ids: Iterable[str], by: ClusterIdentity) -> list[Machine]:
        known = self.living | {one.native_id: one for one in self.strangers}
        found = [known[one] for one in native_ids if one in known]
        return [one for one in found if self.may_end(one, by)]

    def _submitted(self, owner: str) -> int:
        """Count what is not yet over: of an allocation that goes on without some members, those that go on.

        Slurm's own limit is on jobs, of which a whole allocation is one.
        """
        members = (one for job in self.jobs.values() for one in job.members)
        return sum(not one.is_over and one.identity.owner == owner for one in members)

    # -- the weather ----------------------------------------------------------------------

    def preempt(self, machine: Machine) -> None:
        """Take the job's nodes back: TERM, KILL after a while, and maybe into the queue again."""
        job = self._of[machine.native_id]
        if job.state == "RUNNING" and not any(one.cause for one in job.members):
            job.to_requeue = self.chance.random() < self.scenario.requeues
            self.ground.say(self.name, "preempts", job.job_id, "requeued" if job.to_requeue else "")
            for one in job.members:
                self._stop(one, Cause.PREEMPTED)

    def die(self, machine: Machine) -> None:
        """Let a node fail: the whole job ends with it."""
        super().die(machine)
        for one in self._of[machine.native_id].members:
            if one is not machine and not one.is_over:
                self._stop(one, Cause.DIED)

    def _stop(self, machine: Machine, cause: Cause) -> None:
        bootstrap = self.bootstraps.get(machine.native_id)
        if bootstrap is not None:
            bootstrap.term(cause)
            self.agenda.after(KILL_WAIT_S, self._kill, machine, cause)

    def _kill(self, machine: Machine, cause: Cause) -> None:
        bootstrap = self.bootstraps.get(machine.native_id)
        if bootstrap is not None and bootstrap.machine is machine:
            bootstrap.kill(cause, notice_s=self.chance.uniform(0.5, 3.0))

    # -- other users ------------------------------------------------------------------------

    def _begin_others(self) -> None:
        """Let other users' jobs run already, and let more come, so that they take `others` on average."""
        taken = round(self.scenario.others * self.scenario.machines)
        for _ in range(taken):
            job = self._new_job(1)
            job.eligible_s, job.run_s = 0.0, self._others.uniform(0.0, OTHERS_S[1])
            self._start(job)
        if taken:
            self._plan_other()

    def _plan_other(self) -> None:
        largest = max(1, self.scenario.machines // 4)
        mean_s = sum(OTHERS_S) / 2
        per_s = self.scenario.others * self.scenario.machines / (mean_s * (1 + largest) / 2)

        def arrive() -> None:
            if not self.is_calm:
                job = self._new_job(self._others.randint(1, largest))
                job.run_s = self._others.uniform(*OTHERS_S)
                self._plan_other()

        self.agenda.after(self._others.expovariate(per_s), arrive)


def _afresh(machine: Machine, now_s: float) -> Machine:
    return Machine(
        backend=machine.backend,
        native_id=machine.native_id,
        instance_id=machine.instance_id,
        identity=machine.identity,
        node_type=machine.node_type,
        shape_id=machine.shape_id,
        resources=machine.resources,
        asked_s=now_s,
        labels=machine.labels,
        start=machine.start,
        price_usd_per_h=machine.price_usd_per_h,
        allocation_id=machine.allocation_id,
    )
