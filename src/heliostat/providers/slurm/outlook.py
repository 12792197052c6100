"""When a job of a type would start: by what Slurm expects of those that wait, by what was seen, by trial."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

from heliostat.providers.slurm.jobs import Job

LATELY_S = 3600.0
"""Waits that ended longer ago say nothing of the queue now."""
WAITS_KEPT = 20
TRIAL_EVERY_S = 900.0
"""A trial ask (`sbatch --test-only`) uses up a job id and slurmctld's time."""
BEGUN = frozenset({"RUNNING", "COMPLETING", "COMPLETED", "TIMEOUT"})
BEYOND_S = 30 * 86_400.0
"""Behind jobs without a limit Slurm expects years (seen: 3558): nothing is known then."""


class Outlook:
    """Per node type, in Unix seconds. It forgets with its process: nothing here is needed for correctness."""

    def __init__(self) -> None:
        self._expected: dict[str, float] = {}
        self._waits: dict[str, deque[tuple[float, float]]] = {}
        self._counted: set[tuple[int, int | None]] = set()
        self._trials: dict[str, tuple[float, float | None]] = {}
        self._throttles: dict[int, int] = {}

    def saw(self, jobs: Iterable[Job], *, now_s: float) -> None:
        """Take in a listing: expected starts of what waits, waits of what has begun.

        What an array's own throttle holds back waits for us, not for the queue, and tells nothing.
        """
        every = list(jobs)
        throttled = {job.array_id: job.throttle for job in every if job.throttle is not None}
        listed = {job.array_id for job in every}
        self._throttles = {key: most for key, most in self._throttles.items() if key in listed} | throttled
        self._expected = {}
        for job in every:
            name = job.tag.node_type
            queues = job.state == "PENDING" and job.reason != "JobArrayTaskLimit"
            start_s = _credible(job.start_s, now_s) if queues else None
            if start_s is not None:
                self._expected[name] = min(start_s, self._expected.get(name, start_s))
        known = {(job.array_id, task) for job in every for task in job.tasks or (None,)}
        self._counted &= known
        for job in every:
            # One that was cancelled while it waited has that moment as its start.
            if job.state not in BEGUN or job.start_s is None or job.submitted_s is None:
                continue
            for task in job.tasks or (None,):
                # Tasks begin in their order: those beyond the throttle had to wait for it.
                held = task is not None and task >= self._throttles.get(job.array_id, task + 1)
                if (job.array_id, task) not in self._counted and not held:
                    self._counted.add((job.array_id, task))
                    waits = self._waits.setdefault(job.tag.node_type, deque(maxlen=WAITS_KEPT))
                    waits.append((job.start_s, max(0.0, job.start_s - job.submitted_s)))

    def tried(self, node_type: str, start_s: float | None, *, now_s: float) -> None:
        """Take in what a trial ask said; None: Slurm does not know."""
        self._trials[node_type] = (now_s, _credible(start_s, now_s))

    def wants_trial(self, node_type: str, *, now_s: float) -> bool:
        """Say whether nothing else tells of the type and none was tried lately."""
        asked_s, _ = self._trials.get(node_type, (float("-inf"), None))
        return self._from_jobs(node_type, now_s) is None and now_s - asked_s >= TRIAL_EVERY_S

    def ready_at_s(self, node_type: str, *, now_s: float) -> float | None:
        """Return when a job submitted now is likely to start; None: nobody knows."""
        found_s = self._from_jobs(node_type, now_s)
        if found_s is not None:
            return found_s
        asked_s, start_s = self._trials.get(node_type, (float("-inf"), None))
        if start_s is None or now_s - asked_s >= TRIAL_EVERY_S:
            return None
        return now_s + max(0.0, start_s - asked_s)

    def _from_jobs(self, node_type: str, now_s: float) -> float | None:
        if node_type in self._expected:
            return max(now_s, self._expected[node_type])
        waits = [wait_s for at_s, wait_s in self._waits.get(node_type, ()) if now_s - at_s < LATELY_S]
        return now_s + median(waits) if waits else None


def _credible(start_s: float | None, now_s: float) -> float | None:
    """Return an expected start, one in the past as now; None where it is none."""
    return None if start_s is None or start_s - now_s > BEYOND_S else max(start_s, now_s)
