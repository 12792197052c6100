"""How vanished jobs ended: lines as `sacct --parsable2` prints them."""

from __future__ import annotations

import pytest

from heliostat.model.instance import BackendState
from heliostat.providers.slurm.accounting import FIELDS, end_of, parse_sacct, sacct_command


def line(job: str, state: str, *, code: str = "0:0", end: str = "1795268066", reason: str = "None") -> str:
    return f"{job}|{state}|{code}|1795268065|{end}|n1|{reason}\n"


def test_one_command_asks_for_many() -> None:
    command = sacct_command(["46_0", "46_1", "50.0", "50.1"])
    assert command[0] == "sacct"
    assert command[-1] == "--jobs=46_0,46_1,50,50.0,50.1"
    assert f"--format={','.join(FIELDS)}" in command


def test_a_site_without_accounting() -> None:
    assert parse_sacct("Slurm accounting storage is disabled\n") is None
    assert parse_sacct("") == {}


@pytest.mark.parametrize(
    ("text", "state", "detail"),
    [
        (line("1", "COMPLETED"), BackendState.ENDED, "COMPLETED: ended by itself"),
        (line("1", "CANCELLED by 1000"), BackendState.ENDED, "CANCELLED: cancelled by user id 1000"),
        (line("1", "CANCELLED"), BackendState.ENDED, "CANCELLED: by scancel"),
        (line("1", "TIMEOUT", reason="TimeLimit"), BackendState.ENDED, "TIMEOUT: its time limit was reached"),
        (line("1", "FAILED", code="3:0"), BackendState.FAILED, "FAILED: exit code 3"),
        (line("1", "FAILED", code="0:9"), BackendState.FAILED, "FAILED: killed by SIGKILL"),
        (line("1", "FAILED", code="0:44"), BackendState.FAILED, "FAILED: killed by signal 44"),
        (
            line("1", "FAILED", code="0:53"),
            BackendState.FAILED,
            "FAILED: its log could not be opened on the node",
        ),
        (line("1", "NODE_FAIL", code="1:0"), BackendState.FAILED, "NODE_FAIL: one of its nodes failed"),
        (line("1", "RUNNING", end="Unknown"), BackendState.RUNNING, "RUNNING"),
        (line("1", "PENDING", end="Unknown"), BackendState.QUEUED, "PENDING"),
        (line("1", "CANCELLED+"), BackendState.ENDED, "CANCELLED: by scancel"),
        (line("1", "STRANGE"), BackendState.UNKNOWN, "STRANGE"),
    ],
)
def test_ends(text: str, state: BackendState, detail: str) -> None:
    ends = parse_sacct(text)
    assert ends is not None
    assert (ends["1"].state, ends["1"].detail) == (state, detail)


def test_memory_is_named() -> None:
    ends = parse_sacct(line("46_3", "OUT_OF_MEMORY", code="0:125"))
    assert ends is not None
    assert ends["46_3"].detail.startswith("OUT_OF_MEMORY: killed, since it used more memory")


def test_code_times_and_nodes() -> None:
    ends = parse_sacct(line("46_0", "FAILED", code="3:0") + line("46_1", "RUNNING", end="Unknown"))
    assert ends is not None
    end = ends["46_0"]
    assert (end.exit_code, end.signal, end.started_s, end.ended_s) == (3, 0, 1795268065.0, 1795268066.0)
    assert end.nodes == "n1"
    assert ends["46_1"].ended_s is None


def test_a_gangs_member_ends_with_its_step_or_its_job() -> None:
    ends = parse_sacct(
        line("50", "CANCELLED by 0") + line("50.batch", "CANCELLED") + line("50.0", "COMPLETED")
    )
    assert ends is not None
    assert end_of(ends, "50.0") is ends["50.0"]
    assert end_of(ends, "50.1") is ends["50"]
    assert end_of(ends, "51.0") is None


REAL = """\
139|CANCELLED by 0|0:0|1795270125|1795270131|n[2-3]|None
139.batch|CANCELLED|0:15|1795270125|1795270131|n2|
139.0|CANCELLED|0:15|1795270125|1795270131|n3|
139.1|FAILED|4:0|1795270125|1795270125|n2|
138_1|FAILED|0:9|1795270125|1795270125|n1|None
138_1.batch|CANCELLED|0:9|1795270125|1795270125|n1|
138_5|RUNNING|0:0|1795270125|Unknown|n2|JobArrayTaskLimit
142|PENDING|0:0|Unknown|Unknown|None assigned|None
"""


def test_a_listing_of_22_05_8() -> None:
    ends = parse_sacct(REAL)
    assert ends is not None
    found = {key: end.detail for key, end in ends.items() if not key.endswith(".batch")}
    assert found == {
        "139": "CANCELLED: cancelled by user id 0",
        "139.0": "CANCELLED: by scancel",
        "139.1": "FAILED: exit code 4",
        "138_1": "FAILED: killed by SIGKILL",
        "138_5": "RUNNING",
        "142": "PENDING",
    }
    assert ends["142"].nodes == ""


@pytest.mark.parametrize("text", ["1|COMPLETED|0:0\n", line("1", "done"), line("1", "FAILED", code="three")])
def test_a_line_that_cant_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="sacct's line"):
        parse_sacct(text)
