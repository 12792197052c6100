"""What a job script does on its node, in a real bash."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.providers.slurm.scripts import HEARS, TASK, ask, bash, made, started, tool


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"setup": ["module load x", "for i in 1 2; do\n  echo $i\ndone", "echo 'HELIOSTAT_MEMBER'"]},
        {"env": {"uv": "~/it's.txt"}},
        {"env": {"conda": "/shared/env.yml"}},
        {"container": {"image": "/x y.sif", "args": ["--bind=/a b"]}},
    ],
)
def test_a_script_is_good_bash(options: dict[str, object], together: bool) -> None:
    script = made(options, together=together).script
    done = subprocess.run(
        ["/bin/bash", "-n"], check=False, input=script, text=True, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert script.startswith("#!/bin/bash\n")


def test_a_task_becomes_the_bootstrap() -> None:
    found = started(
        {
            "environment": {"A": 'it\'s "$HOME" `x`', "B": "1"},
            "setup": ["export FROM_SETUP='a b'", "cd /", "set -eu; f() { false; true; }; f", "cat"],
            "time_limit": 60,
            "log_monitor": False,
            "ray_args": ["--x y"],
            "port_range": [30000, 31000],
            "temp_root": "/tmp",
        },
        first=10,
        environment={"B": "2"},
        resources={"CPU": 4, "custom": 1},
        kill_wait_s=30,
    )
    document, environ = found["document"], found["environ"]
    assert (environ["A"], environ["B"], environ["FROM_SETUP"]) == ('it\'s "$HOME" `x`', "2", "a b")
    assert found["cwd"] == "/"
    document["resources"] = {key: document["resources"][key] for key in ("CPU", "custom")}
    assert document == {
        "cluster_uid": "0123456789abcdef",
        "gcs_address": "127.0.0.1:6379",
        "labels": {"a": "b", "heliostat.io/job-id": "46_1", "heliostat.io/node": _node(document)},
        "resources": {"CPU": 4, "custom": 1},
        "node_type": "gpu",
        "log_monitor": False,
        "ray_args": ["--x y"],
        "port_range": [30000, 31000],
        "lease_warning_s": 120,
        "drain_grace_s": 22,
        "instance_id": "l1.11",
        "node_ip": "127.0.0.1",
        "temp_root": "/tmp",
    }


def _node(document: dict[str, Any]) -> str:
    return str(document["labels"]["heliostat.io/node"])


def test_the_batch_process_itself_becomes_the_bootstrap() -> None:
    script = made(bootstrap="import os\nprint(os.getpid())").script
    shell = subprocess.Popen(
        ["/bin/bash", "-s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **TASK},
        text=True,
    )
    out, _ = shell.communicate(script, timeout=30)
    assert out.splitlines()[-1] == str(shell.pid)


def test_a_requeued_job_ends_at_once() -> None:
    done = bash(made({"setup": ["echo never"]}).script, {**TASK, "SLURM_RESTART_COUNT": "1"})
    assert (done.returncode, done.stderr) == (20, "")
    assert (
        done.stdout == "bootstrap: ended with 20: Slurm has requeued this job; an instance starts only once\n"
    )


@pytest.mark.parametrize(
    ("setup", "code", "words"),
    [
        (["true", "no-such-command a  b"], 21, "setup line 2 (no-such-command a b) failed with code 127"),
        (["echo 'open"], 21, "setup line 1 (echo 'open) failed with code 2"),
        (["exit 3"], 3, "setup line 1 (exit 3) ended the job script"),
        (["set -e", "false; true"], 0, ""),
        (["f() { return 5; }", "f"], 21, "setup line 2 (f) failed with code 5"),
    ],
)
def test_a_setup_line_that_fails_is_named(setup: list[str], code: int, words: str) -> None:
    done = bash(made({"setup": setup}).script, TASK)
    assert done.returncode == code
    if code:
        assert done.stdout.splitlines()[-1] == f"bootstrap: ended with {code}: {words}"


@pytest.mark.parametrize("line", ["kill -USR1 $$", "trap - USR1; trap '' USR1; false || true"])
def test_a_warning_signal_during_the_setup_does_no_harm_and_reaches_the_bootstrap(line: str) -> None:
    # The second line ends what the first has set; afterwards the signal is noted again.
    script = made({"setup": [line]}, bootstrap=HEARS).script
    script = script.replace("heliostat_step='the start of the worker'", "kill -USR1 $$", 1)
    done = bash(script, TASK)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "None heard SIGUSR1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"python": "/none/python"}, "no /none/python on this node; set python, env or container"),
        ({"container": {"image": "x.sif"}}, "container: there is no apptainer on this node"),
        ({"env": {"uv": "/none/r.txt"}}, "env.uv: /none/r.txt can't be read on this node"),
    ],
)
def test_what_is_not_on_the_node_is_said(options: dict[str, object], words: str) -> None:
    done = bash(made(options).script, TASK, path="/usr/bin:/bin")
    assert done.returncode == 22
    assert done.stdout.startswith(f"bootstrap: ended with 22: {words}")


@pytest.mark.parametrize("together", [False, True])
def test_a_worker_asks_slurm_nothing_on_its_node(together: bool) -> None:
    # A hundred that start together would be a hundred questions to slurmctld.
    script = made({"time_limit": 60}, together=together).script
    assert not re.findall(r"^[^#]*\b(squeue|sacct|sinfo|scontrol (?!show hostnames))", script, re.MULTILINE)


def test_a_container_runs_in_its_runtime(tmp_path: Path) -> None:
    path = tool(tmp_path, "apptainer", 'printf "%s\\n" "$@" >"$0.asked"; exec "$PYTHON" "${@: -3}"')
    options: dict[str, object] = {"container": {"image": "~/ray it.sif", "args": ["--bind=/a b"]}}
    script = made(options, resources={"GPU": 1}, start={**ask().start, "gcs_address": "127.0.0.1:1"}).script
    done = bash(script, {**TASK, "PYTHON": sys.executable}, path=path)
    assert json.loads(done.stdout.splitlines()[-1])["document"]["instance_id"] == "l1.1"
    asked = (tmp_path / "apptainer.asked").read_text().splitlines()
    image = f"{os.environ.get('HOME', '/')}/ray it.sif"
    assert asked[:7] == ["exec", "--bind=/a b", "--nv", image, "python3", "-I", "-c"]


# -- the file's own steps, before Ray starts

SETUP = {
    "mounts": [["~/x", "/shared/x"]],
    "initialization": [["initialization_commands.0", 'echo "first it\'s $A"']],
    "commands": [["setup_commands.0", "echo second"]],
}
START = {"cluster_uid": "0123456789abcdef", "gcs_address": "127.0.0.1:6379", "setup": SETUP}


@pytest.mark.parametrize("together", [False, True])
def test_the_bootstrap_in_the_job_gets_the_steps_as_they_are(together: bool) -> None:
    script = made({}, start=START, together=together, count=1).script
    assert "echo second" not in script.replace('"echo second"', ""), "it stands in the payload alone"
    if not together:
        assert started({}, start=START)["document"]["setup"] == SETUP


def test_with_a_container_initialization_runs_outside_of_it(tmp_path: Path) -> None:
    path = tool(tmp_path / "bin", "apptainer", 'echo "inside: $*"; cat > /dev/null')
    options: dict[str, object] = {"container": {"image": "/x.sif"}, "environment": {"A": "a"}}
    script = made(options, start=START).script
    done = bash(script, TASK, path=path)
    assert done.stdout.splitlines()[0] == "first it's a"
    assert done.stdout.splitlines()[1].startswith("inside: exec /x.sif")
    payload = json.loads(next(line for line in script.splitlines() if line.startswith('{"start"')))
    assert payload["start"]["setup"] == {**SETUP, "initialization": []}


def test_one_that_fails_there_ends_the_job_with_its_key(tmp_path: Path) -> None:
    path = tool(tmp_path / "bin", "apptainer", "echo inside")
    failing = {**SETUP, "initialization": [["gpu.initialization_commands.0", "exit 4"]]}
    done = bash(
        made({"container": {"image": "/x.sif"}}, start={**START, "setup": failing}).script, TASK, path=path
    )
    assert done.returncode == 21
    assert "bootstrap: ended with 21: gpu.initialization_commands.0 failed with exit code 4" in done.stdout
    assert "inside" not in done.stdout
