"""How ends are told of what squeue forgets: only accounting's word ends an instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heliostat.model.instance import BackendState
from heliostat.ports.errors import Unavailable
from heliostat.providers.slurm.ends import ASKED_AT_MOST, Ends
from heliostat.providers.slurm.members import Member, members_of, row_of
from heliostat.providers.slurm.runner import Output
from tests.unit.providers.slurm.jobs_for_tests import gang, task

NONE: dict[str, Member] = {}
RUNNING = members_of([task(0), task(1)]).chosen


class Accounting:
    """Answers every sacct with `text`; None: it does not answer."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.counts: Counter[str] = Counter()

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.counts[argv[0]] += 1
        if self.text is None:
            raise Unavailable("sacct did not answer within 30 s")
        return Output(0, self.text, "")

    async def aclose(self) -> None: ...


def line(state: str, native_id: str = "46_0") -> str:
    return f"{native_id}|{state}|1:0|1000|2000|n1|None\n"


async def listed(
    ends: Ends, members: dict[str, Member], accounting: Accounting, *away: str
) -> dict[str, BackendState]:
    rows = await ends.rows(members, terminated=away, runner=accounting, deadline_s=5)
    return {row.instance_id: row.state for row in rows}


async def test_what_accounting_calls_over_stays_listed_until_it_is_terminated() -> None:
    ends, accounting = Ends("/logs"), Accounting(line("FAILED") + line("RUNNING", "46_1"))
    assert await listed(ends, dict(RUNNING), accounting) == {}
    for _ in range(3):
        assert await listed(ends, NONE, accounting) == {"l1.0": BackendState.FAILED}
    assert await listed(ends, NONE, accounting, "l1.0") == {}
    assert await listed(ends, NONE, accounting) == {}


async def test_a_listing_that_lacks_a_running_job_ends_nothing() -> None:
    ends, accounting = Ends("/logs"), Accounting(line("RUNNING") + line("RUNNING", "46_1"))
    await listed(ends, dict(RUNNING), accounting)
    for _ in range(2 * ASKED_AT_MOST):
        assert await listed(ends, NONE, accounting) == {}
    assert accounting.counts["sacct"] == ASKED_AT_MOST
    assert await listed(ends, dict(RUNNING), accounting) == {}


async def test_what_is_listed_again_is_over_no_more() -> None:
    ends, accounting = Ends("/logs"), Accounting(line("COMPLETED"))
    await listed(ends, dict(RUNNING), accounting)
    assert await listed(ends, NONE, accounting) == {"l1.0": BackendState.ENDED}
    assert await listed(ends, dict(RUNNING), accounting) == {}


async def test_without_accounting_the_end_is_not_made_up() -> None:
    ends, accounting = Ends("/logs"), Accounting(None)
    await listed(ends, dict(RUNNING), accounting)
    for _ in range(2 * ASKED_AT_MOST):
        assert await listed(ends, NONE, accounting) == {}
    assert accounting.counts["sacct"] == ASKED_AT_MOST


async def test_a_gang_whose_job_fails_before_its_steps_has_the_jobs_own_words(tmp_path: Path) -> None:
    ends = Ends(str(tmp_path))
    members = members_of([gang("FAILED")]).chosen
    await ends.rows(members, terminated=(), runner=Accounting(None), deadline_s=5)
    (tmp_path / "g1.slurm.log").write_text("srun: error: Unable to create step\n")
    (tmp_path / "g1.2.slurm.log").write_text("bootstrap: ended with 21: setup line 1 failed\n")
    rows = await ends.worded([row_of(one, stopping=False, notice_s=None) for one in members.values()])
    details = {row.instance_id: str(row.detail) for row in rows}
    assert "Unable to create step" in details["g1.0"]
    assert "setup line 1 failed" in details["g1.2"]
