from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.config.record import ClusterRecord
from tests.unit.cli.conftest import Invoke

HEAVY = ("ray", "pydantic", "uvicorn", "starlette", "grpc")


def heliostat(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heliostat.cli.main", *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["add", "--no-wait"], ["list"], ["env"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import sys
from heliostat.cli.main import cli
try:
    cli({arguments!r}, prog_name="heliostat")
except SystemExit as end:
    assert end.code == 0, end.code
loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def test_looking_at_a_heads_job_does_not_import_ray() -> None:
    program = (
        "import sys, heliostat.cli.queued_start, heliostat.cli.queued_head; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)


def test_every_problem_of_a_file_is_a_line_and_the_exit_code_is_2(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("cluster_name: bad\nmax_worker: 2\nhead_node_type: nobody\n")
    result = invoke("check", str(path))
    assert result.exit_code == 2
    assert "max_worker" in result.stderr
    assert "head_node_type" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_the_system_is_worded(invoke: Invoke, state: Path) -> None:
    (state / "x").write_text("")
    result = invoke("init", "local", "-o", str(state / "no" / "such" / "cluster.yaml"))
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


@pytest.mark.usefixtures("cluster")
def test_a_broken_pipe_is_silent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "heliostat.cli.main", "status", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_mistake_of_ours_is_one_line_unless_debugging() -> None:
    program = """
import sys
from heliostat.cli import main
main.Commands.get_command = lambda *_: 1 / 0
sys.argv = ["heliostat", "status"]
main.main()
"""
    for debug, has_trace in (("", False), ("1", True)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "HELIOSTAT_DEBUG": debug},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is has_trace
        assert "ZeroDivisionError" in done.stderr


def test_the_worlds_errors_show_their_trace_when_debugging(state: Path) -> None:
    where = {"HELIOSTAT_STATE_DIR": str(state)}
    assert heliostat("status", environment=where).stderr.startswith("heliostat: no cluster runs here")
    assert "Traceback" in heliostat("status", environment=where | {"HELIOSTAT_DEBUG": "1"}).stderr


def test_the_version(invoke: Invoke) -> None:
    assert invoke("--version").output.startswith("heliostat, version ")


def test_a_record_is_not_needed_for_help(cluster: ClusterRecord, invoke: Invoke) -> None:
    assert invoke("status", "--help").exit_code == 0
