"""How ends are told of what squeue forgets: only accounting's word ends an instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heliostat.model.instance import BackendState
from heliostat.ports.errors import Unavailable
from heliostat.providers.slurm.ends import ASKED_AT_MOST, Asking, Ends
from heliostat.providers.slurm.members import Member, members_of, row_of
from heliostat.providers.slurm.recalling import MARGIN_S
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.tags import job_name
from tests.unit.providers.slurm.jobs_for_tests import TAG, gang, task

NONE: dict[str, Member] = {}
RUNNING = members_of([task(0), task(1)]).chosen


class Accounting:
    """Answers every sacct with `text`; None: it does not answer."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.counts: Counter[str] = Counter()
        self.asked: tuple[str, ...] = ()

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.counts[argv[0]] += 1
        self.asked = tuple(argv)
        if self.text is None:
            raise Unavailable("sacct did not answer within 30 s")
        return Output(0, self.text, "")

    async def aclose(self) -> None: ...


def line(state: str, native_id: str = "46_0") -> str:
    return f"{native_id}|{state}|1:0|1000|2000|n1|None\n"


def asking(accounting: Accounting) -> Asking:
    return Asking(accounting, deadline_s=5, cluster_uid=TAG.cluster_uid, user=None, now_s=5000.0)


async def listed(
    ends: Ends, members: dict[str, Member], accounting: Accounting, *away: str
) -> dict[str, BackendState]:
    rows = await ends.rows(members, terminated=away, asking=asking(accounting))
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


async def test_what_ended_while_no_controller_was_there_is_told_as_accounting_knows_it(
    tmp_path: Path,
) -> None:
    name = job_name(TAG)
    text = f"46_0|FAILED|3:0|1000|2000|n1|None|{name}\n46_1|RUNNING|0:0|1000|Unknown|n1|None|{name}\n"
    ends, accounting = Ends(str(tmp_path)), Accounting(text)
    (tmp_path / "l1.0+0.slurm.log").write_text("bootstrap: ended with 15: no head answers\n")
    ends.recall({"l1.0": 1000.0, "l1.1": 1010.0, "l1.2": 990.0})
    for _ in range(2 * ASKED_AT_MOST):
        rows = await ends.rows({"l1.1": RUNNING["l1.1"]}, terminated=(), asking=asking(accounting))
        assert [(row.instance_id, row.state) for row in rows] == [("l1.0", BackendState.FAILED)]
    (row,) = await ends.worded(rows)
    assert row.detail == "FAILED: exit code 3: bootstrap: ended with 15: no head answers"
    # One call for all; what accounting does not know may only be late, so it is asked a few times.
    assert accounting.counts["sacct"] == ASKED_AT_MOST
    assert f"--starttime=now-{4010 + MARGIN_S}" in accounting.asked
    assert await listed(ends, NONE, accounting, "l1.0") == {}


async def test_nothing_is_recalled_where_all_that_was_wanted_is_listed_or_away() -> None:
    ends, accounting = Ends("/logs"), Accounting("")
    ends.recall({"l1.0": 1000.0, "l1.1": 1000.0, "l1.2": 1000.0})
    assert await listed(ends, dict(RUNNING), accounting, "l1.2") == {}
    assert accounting.counts["sacct"] == 0


async def test_a_site_without_accounting_recalls_nothing() -> None:
    ends, accounting = Ends("/logs"), Accounting(None)
    ends.recall({"l1.0": 1000.0})
    for _ in range(2 * ASKED_AT_MOST):
        assert await listed(ends, NONE, accounting) == {}
    assert accounting.counts["sacct"] == ASKED_AT_MOST


async def test_a_gang_whose_job_fails_before_its_steps_has_the_jobs_own_words(tmp_path: Path) -> None:
    ends = Ends(str(tmp_path))
    members = members_of([gang("FAILED")]).chosen
    await ends.rows(members, terminated=(), asking=asking(Accounting(None)))
    (tmp_path / "g1.slurm.log").write_text("srun: error: Unable to create step\n")
    (tmp_path / "g1.2.slurm.log").write_text("bootstrap: ended with 21: setup line 1 failed\n")
    rows = await ends.worded([row_of(one, stopping=False, notice_s=None) for one in members.values()])
    details = {row.instance_id: str(row.detail) for row in rows}
    assert "Unable to create step" in details["g1.0"]
    assert "setup line 1 failed" in details["g1.2"]
