"""Our jobs out of accounting by their names: lines as sacct prints them, among those of others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.instance import BackendState
from heliostat.providers.slurm.recalling import MARGIN_S, recall_command, recalled
from heliostat.providers.slurm.tags import job_name
from tests.unit.providers.slurm.jobs_for_tests import TAG

GANG = replace(TAG, launch_id="g1", count=3, together=True)
LATER = replace(TAG, launch_id="l2", count=2, first=1000)
UID = TAG.cluster_uid
TEXT = f"""\
46_0|FAILED|0:9|1000|2000|n1|None|{job_name(TAG)}
46_0.batch|FAILED|0:9|1000|2000|n1||batch
46_1|RUNNING|0:0|1000|Unknown|n1|None|{job_name(TAG)}
46_[2-3%1]|CANCELLED by 0|0:0|None|2000|None assigned|None|{job_name(TAG)}
47_1|TIMEOUT|0:0|1000|2000|n2|TimeLimit|{job_name(LATER)}
50|CANCELLED by 0|0:0|1000|2000|n[1-3]|None|{job_name(GANG)}
50.batch|CANCELLED|0:15|1000|2000|n1||batch
50.0|COMPLETED|0:0|1000|1500|n1||bash
50.1|FAILED|4:0|1000|1500|n2||bash
51_0|FAILED|1:0|1000|2000|n1|None|{job_name(replace(TAG, cluster_uid="another"))}
52|COMPLETED|0:0|1000|2000|n1|None|a|b
53|COMPLETED|0:0|1000|2000|n1|None|two
lines | heliostat:1:
54|FAILED|1:0|1000|2000|n1|None|{job_name(TAG)[:30]}
"""


def test_only_what_is_over_and_ours_is_recalled() -> None:
    found = {key: (one.native_id, end.state) for key, (one, end) in recalled(TEXT, UID).items()}
    ended, failed = BackendState.ENDED, BackendState.FAILED
    assert found == {
        "l1.0": ("46_0", failed),
        "l1.2": ("46_2", ended),
        "l1.3": ("46_3", ended),
        "l2.1001": ("47_1", ended),
        "g1.0": ("50.0", ended),
        "g1.1": ("50.1", failed),
        "g1.2": ("50.2", ended),
    }
    member, end = recalled(TEXT, UID)["g1.2"]
    assert (member.job.tag.node_type, end.detail) == ("cpu", "CANCELLED: cancelled by user id 0")


@pytest.mark.parametrize("text", ["", "Slurm accounting storage is disabled\n", "sacct: error: no\n"])
def test_where_there_is_nothing_nothing_is_recalled(text: str) -> None:
    assert recalled(text, UID) == {}


def test_one_command_asks_for_all_since_then() -> None:
    command = recall_command(90.5, None)
    assert command[0] == "sacct"
    assert command[-2].endswith(",JobName")
    assert command[-1] == f"--starttime=now-{91 + MARGIN_S}"
    assert recall_command(-5.0, "ada")[-2:] == (f"--starttime=now-{MARGIN_S}", "--user=ada")
