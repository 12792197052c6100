"""A Slurm in memory, behind `Runner`: it takes a head's job and shows what a test says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from heliostat.ports.errors import Unavailable
from heliostat.providers.slurm.jobs import END, SEPARATOR
from heliostat.providers.slurm.runner import Output

AWAY = "Unable to contact slurm controller (connect failure)"
NO_JOB = "scancel: error: Kill job error on job id {0}: Invalid job id specified"


@dataclass
class FakeJob:
    job_id: int
    comment: str
    script: str = ""
    state: str = "PENDING"
    reason: str = "Priority"
    start: str = "N/A"
    tasks: str = "N/A"
    argv: tuple[str, ...] = ()

    @property
    def row(self) -> str:
        shown = {
            "%F": str(self.job_id), "%A": str(self.job_id), "%K": self.tasks, "%T": self.state,
            "%r": self.reason, "%P": "main", "%S": self.start, "%e": "N/A", "%l": "1:00:00",
            "%L": "1:00:00", "%V": "1", "%N": "n1" if self.state == "RUNNING" else "",
            "%k": self.comment, "%j": "hel-x-head",
        }  # fmt: skip
        return SEPARATOR.join(shown.values()) + END + "\n"


@dataclass
class FakeSlurm:
    """`on_look` is called with the number of each squeue, before it answers; `on_cancel` after a scancel.

    `away` holds calls that get no answer: a command and which call of it, counted from 1.
    """

    jobs: dict[int, FakeJob] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    refusals: dict[str, Output | Exception] = field(default_factory=dict)
    on_look: Callable[[int], None] = lambda _: None
    on_cancel: Callable[[tuple[str, ...]], None] = lambda _: None
    counts: Counter[str] = field(default_factory=Counter)
    away: set[tuple[str, int]] = field(default_factory=set)

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.asked.append(tuple(argv))
        self.counts[argv[0]] += 1
        if argv[0] == "squeue":
            self.on_look(self.counts["squeue"])
        if (argv[0], self.counts[argv[0]]) in self.away:
            raise Unavailable(AWAY)
        found = self.refusals.get(argv[0])
        if isinstance(found, Exception):
            if argv[0] == "sbatch" and "lost" in str(found):
                self.add(argv, stdin)
            raise found
        return found or getattr(self, f"_{argv[0]}")(tuple(argv), stdin)

    async def aclose(self) -> None: ...

    def add(self, argv: Sequence[str], script: str = "") -> FakeJob:
        comment = next(one.partition("=")[2] for one in argv if one.startswith("--comment="))
        job = FakeJob(100 + len(self.jobs), comment, script, argv=tuple(argv))
        self.jobs[job.job_id] = job
        return job

    def change(self, **changes: str) -> None:
        """Change what Slurm says of the first job."""
        first = next(iter(self.jobs))
        self.jobs[first] = replace(self.jobs[first], **changes)

    @property
    def cancelled(self) -> list[tuple[str, ...]]:
        return [one[1:] for one in self.asked if one[0] == "scancel"]

    def _sbatch(self, argv: tuple[str, ...], stdin: str) -> Output:
        return Output(0, f"{self.add(argv, stdin).job_id}\n", "")

    def _squeue(self, argv: tuple[str, ...], stdin: str) -> Output:
        return Output(0, "".join(job.row for job in self.jobs.values()), "")

    def _scancel(self, argv: tuple[str, ...], stdin: str) -> Output:
        ids = [one.partition("_")[0] for one in argv[1:] if not one.startswith("--")]
        missing = [one for one in ids if int(one) not in self.jobs]
        if "--batch" not in argv:
            for one in ids:
                self.jobs.pop(int(one), None)
        self.on_cancel(argv)
        return Output(1 if missing else 0, "", "\n".join(NO_JOB.format(one) for one in missing))
