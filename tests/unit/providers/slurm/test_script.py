"""sbatch's arguments, and job scripts run by a real bash with stand-ins for Slurm, uv and the bootstrap."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm import environments
from heliostat.providers.slurm.logs import log_path
from heliostat.providers.slurm.options import job_options, parse_section
from heliostat.providers.slurm.script import Ask, Submission, notice_s, submission, time_limit_s
from heliostat.providers.slurm.tags import Tag, parse_comment

GIB = 2**30
STAND_IN = """
import base64, json, os
document = json.loads(base64.b64decode(os.environ["HELIOSTAT_START"]))
print(json.dumps({"document": document, "environ": dict(os.environ), "cwd": os.getcwd()}))
"""
TASK = {
    "SLURM_JOB_ID": "48",
    "SLURM_ARRAY_JOB_ID": "46",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_CPUS_ON_NODE": "4",
}


def ask(**changes: Any) -> Ask:
    count, first = changes.get("count", 3), changes.get("first", 0)
    together = changes.get("together", False)
    tag = Tag("demo", "0123456789abcdef", "ada", "l1", "gpu", "s1", count, first, together)
    whole = Ask(
        tag=tag,
        count=count,
        first=first,
        together=together,
        at_once=None,
        resources={"CPU": 4},
        start={"cluster_uid": "0123456789abcdef", "gcs_address": "127.0.0.1:6379", "labels": {"a": "b"}},
        environment={},
        log_dir="/shared/logs",
        bootstrap=STAND_IN,
    )
    return replace(whole, **changes)


def made(options: dict[str, object] | None = None, **changes: Any) -> Submission:
    return submission(job_options(parse_section(options or {}), {}), ask(**changes))


def arguments(options: dict[str, object] | None = None, **changes: Any) -> dict[str, str]:
    command, *argv = made(options, **changes).argv
    assert command == "sbatch"
    pairs = [one.removeprefix("--").partition("=") for one in argv]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


# -- the arguments


def test_an_array_without_wishes() -> None:
    given = arguments()
    tag = parse_comment(given.pop("comment"))
    assert tag == ask().tag
    assert given == {
        "parsable": "",
        "job-name": "heliostat:1:0123456789abcdef:::l1:gpu:s1:3:0:array",
        "array": "0-2",
        "nodes": "1",
        "ntasks": "1",
        "output": "/shared/logs/l1.0+%a.slurm.log",
        "cpus-per-task": "4",
        "signal": "B:USR1@120",
        "no-requeue": "",
        "export": "NONE",
        "chdir": "/shared/logs",
        "open-mode": "append",
    }


def test_every_wish_is_an_argument() -> None:
    given = arguments(
        {
            "account": "p1",
            "partition": ["a", "b"],
            "qos": "high",
            "reservation": "class",
            "constraint": '[rack1|rack2]&"x" y\'z',
            "licenses": "matlab:1",
            "nice": -5,
            "exclusive": True,
            "time_limit": "04:00:00",
            "time_min": "01:00:00",
            "comment": 'it\'s "mine"',
            "sbatch": ["--mail-type=FAIL", "--tmp=10G"],
        }
    )
    assert given["comment"].endswith(' it\'s "mine"')
    wanted = {
        "account": "p1",
        "partition": "a,b",
        "qos": "high",
        "reservation": "class",
        "constraint": '[rack1|rack2]&"x" y\'z',
        "licenses": "matlab:1",
        "nice": "-5",
        "exclusive": "",
        "time": "240",
        "time-min": "60",
        "mail-type": "FAIL",
        "tmp": "10G",
    }
    assert {key: given[key] for key in wanted} == wanted


def test_a_gang_is_one_job_with_a_node_for_each() -> None:
    given = arguments(together=True)
    shape = {key: given.get(key) for key in ("nodes", "ntasks", "ntasks-per-node", "array", "output")}
    assert shape == {
        "nodes": "3",
        "ntasks": "3",
        "ntasks-per-node": "1",
        "array": None,
        "output": "/shared/logs/l1.slurm.log",
    }


@pytest.mark.parametrize(("at_once", "array"), [(None, "0-2"), (1, "0-2%1"), (3, "0-2"), (9, "0-2")])
def test_a_throttle_only_where_it_holds_something_back(at_once: int | None, array: str) -> None:
    assert arguments(at_once=at_once)["array"] == array


def test_a_part_of_a_launch_has_its_own_logs() -> None:
    assert arguments(first=1000)["output"] == "/shared/logs/l1.1000+%a.slurm.log"


def test_a_log_is_where_it_is_looked_for() -> None:
    task, gang = ask(first=1000), ask(together=True)
    written = arguments(first=1000)["output"].replace("%a", "2")
    assert log_path(task.log_dir, task.tag, 2) == written
    assert log_path(gang.log_dir, gang.tag, 2).replace(".2.", ".%s.") in made(together=True).script


def test_a_percent_in_a_path_is_not_slurms() -> None:
    assert arguments(log_dir="/x/50%a")["output"] == "/x/50%%a/l1.0+%a.slurm.log"
    assert arguments(log_dir="/x/50%a")["chdir"] == "/x/50%a"


@pytest.mark.parametrize(
    ("options", "resources", "memory"),
    [
        ({}, {"memory": 2 * GIB, "object_store_memory": GIB + 1}, "3073M"),
        ({}, {"object_store_memory": GIB}, "1024M"),
        ({}, {}, None),
        ({"memory": "4GiB"}, {"memory": 2 * GIB}, "4096M"),
        ({"memory_request": False}, {"memory": 2 * GIB}, None),
    ],
)
def test_memory(options: dict[str, object], resources: dict[str, float], memory: str | None) -> None:
    assert arguments(options, resources=resources).get("mem") == memory


@pytest.mark.parametrize(
    ("options", "resources", "cpus"),
    [({}, {}, "1"), ({}, {"CPU": 2.5}, "3"), ({"cpus_per_task": 8}, {"CPU": 4}, "8")],
)
def test_cpus(options: dict[str, object], resources: dict[str, float], cpus: str) -> None:
    assert arguments(options, resources=resources)["cpus-per-task"] == cpus


@pytest.mark.parametrize(
    ("options", "together", "option", "value"),
    [
        ({}, False, "gres", "gpu:2"),
        ({"gpu_type": "a100"}, False, "gres", "gpu:a100:2"),
        ({"gpu_request": "gpus", "gpu_type": "a100"}, False, "gpus", "a100:2"),
        ({"gpu_request": "gpus"}, True, "gpus-per-node", "2"),
        ({"gpu_request": "gpus-per-node"}, False, "gpus-per-node", "2"),
        ({"gpu_request": "gpus-per-task"}, True, "gpus-per-task", "2"),
    ],
)
def test_gpus_in_the_sites_way(options: dict[str, object], together: bool, option: str, value: str) -> None:
    given = arguments(options, resources={"GPU": 2}, together=together)
    styles = {"gres", "gpus", "gpus-per-node", "gpus-per-task"}
    assert {name: given[name] for name in styles & set(given)} == {option: value}


@pytest.mark.parametrize("options", [{"gpu_request": "none"}, {}])
def test_no_gpus(options: dict[str, object]) -> None:
    resources = {"GPU": 2} if options else {"CPU": 1}
    assert not {"gres", "gpus"} & set(arguments(options, resources=resources))


@pytest.mark.parametrize(
    ("options", "cap_s", "limit_s", "time", "notice"),
    [
        ({}, None, None, None, 120),
        ({"time_limit": 60}, None, 3600, "60", 120),
        ({"time_limit": 60}, 1799, 1740, "29", 120),
        ({"time_limit": "90:30"}, None, 5400, "90", 120),
        ({}, 20, 60, "1", 6),
        ({"time_limit": 10}, None, 600, "10", 60),
        ({"time_limit": "unlimited", "drain_notice_s": 600}, None, math.inf, "UNLIMITED", 600),
        ({"drain_notice_s": 0}, None, None, None, 0),
        ({"time_limit": 60, "time_min": 10}, None, 3600, "60", 60),
        ({"time_min": 5}, None, None, None, 30),
    ],
)
def test_times(
    options: dict[str, object], cap_s: float | None, limit_s: float | None, time: str | None, notice: int
) -> None:
    job, wanted = parse_section(options).job, ask(time_limit_s=cap_s)
    assert (time_limit_s(job, wanted), notice_s(job, wanted)) == (limit_s, notice)
    given = arguments(options, time_limit_s=cap_s)
    assert given.get("time") == time
    assert given.get("signal") == (f"B:USR1@{notice}" if notice else None)


def test_a_shortest_time_is_never_above_the_limit() -> None:
    given = arguments({"time_limit": 60, "time_min": 30}, time_limit_s=600)
    assert (given["time"], given["time-min"]) == ("10", "10")


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        made(start={"x": object()})


# -- the script


def bash(
    script: str, environ: dict[str, str], *, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a job script as slurmd does: from a file, without input."""
    inherited = {"PATH": path or os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(script)
        file.flush()
        return subprocess.run(
            ["/bin/bash", file.name],
            check=False,
            stdin=subprocess.DEVNULL,
            env={**inherited, **environ},
            text=True,
            capture_output=True,
            timeout=30,
        )


def started(
    options: dict[str, object], environ: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    done = bash(made(options, **changes).script, environ or TASK)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


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


HEARS = """
import os, signal
found = signal.sigtimedwait([signal.SIGUSR1, signal.SIGTERM], 20)
print(os.environ.get("SLURM_STEP_ID"), "heard", signal.Signals(found.si_signo).name if found else None)
"""


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


def tool(folder: Path, name: str, text: str) -> str:
    """Write a stand-in for a command, and return a PATH on which it is found."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


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


def test_a_gangs_members_are_steps_each_with_its_own_shell(tmp_path: Path) -> None:
    # The stand-in for srun gives the next step id, as slurmctld does, in whatever order the steps come.
    srun = """
    set -C
    step=0
    until { : >"$0.step.$step"; } 2>/dev/null; do step=$((step + 1)); done
    echo "$*" >"$0.asked.$step"
    SLURM_STEP_ID=$step SLURMD_NODENAME=n$step exec /bin/bash -s
    """
    path = tool(tmp_path, "srun", srun)
    tool(tmp_path, "scontrol", "printf 'n1\\nn2\\nn3\\n'")
    options: dict[str, object] = {"setup": ["export OWN=$SLURM_STEP_ID"], "gpu_type": "a100"}
    script = made(options, together=True, resources={"CPU": 2, "GPU": 1}).script
    environ = {name: value for name, value in TASK.items() if "ARRAY" not in name}
    done = bash(script, {**environ, "SLURM_JOB_NODELIST": "n[1-3]", "CUDA_VISIBLE_DEVICES": "0"}, path=path)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(one["document"]["instance_id"] for one in found) == ["l1.0", "l1.1", "l1.2"]
    assert all(one["document"]["instance_id"] == f"l1.{one['environ']['OWN']}" for one in found)
    assert {one["environ"]["SLURM_EXPORT_ENV"] for one in found} == {"ALL"}
    asked = [(tmp_path / f"srun.asked.{step}").read_text().split() for step in range(3)]
    assert {one[-3] for one in asked} == {"--nodelist=n1", "--nodelist=n2", "--nodelist=n3"}
    wanted = {
        "--overlap",
        "--cpus-per-task=2",
        "--mem=0",
        "--gres=gpu:a100:1",
        "--output=/shared/logs/l1.%s.slurm.log",
    }
    assert all(wanted <= set(one) for one in asked)


def test_a_gang_ends_with_the_first_bad_code(tmp_path: Path) -> None:
    path = tool(tmp_path, "srun", 'case "$*" in *=n2*) exit 7;; esac')
    tool(tmp_path, "scontrol", "printf 'n1\\nn2\\nn3\\n'")
    done = bash(made(together=True).script, {"SLURM_JOB_ID": "48"}, path=path)
    assert done.returncode == 7


def gang(tmp_path: Path, bootstrap: str, *, srun: str = "", scontrol: str = "") -> list[str]:
    """Run a gang of two; the stand-ins for Slurm's commands may do something more before their part."""
    step = f'case "$*" in *=n1*) step=0;; *) step=1;; esac\n{srun}\nSLURM_STEP_ID=$step exec /bin/bash -s'
    path = tool(tmp_path, "srun", step)
    tool(tmp_path, "scontrol", f"{scontrol}\nprintf 'n1\\nn2\\n'")
    # More than a pipe holds, so that it is still on its way while signals come.
    script = made(together=True, count=2, bootstrap=bootstrap + "#" * 200_000).script
    script = script.replace("#!/bin/bash\n", "#!/bin/bash\nexport BATCH=$$\n", 1)
    done = bash(script, {"SLURM_JOB_ID": "48"}, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_signals_to_a_gang_reach_its_bootstraps_alone_and_it_goes_on(tmp_path: Path) -> None:
    bootstrap = """
import os, signal, subprocess, sys
free = lambda: signal.pthread_sigmask(signal.SIG_SETMASK, [])
bystander = subprocess.Popen(["sleep", "30"], stdout=2, preexec_fn=free)
for name in ("USR1", "TERM"):
    if os.environ["SLURM_STEP_ID"] == "0":
        os.kill(int(os.environ["BATCH"]), getattr(signal, "SIG" + name))
    found = signal.sigtimedwait([getattr(signal, "SIG" + name)], 20)
    print("heard", signal.Signals(found.si_signo).name)
print("bystander", bystander.poll())
bystander.kill()
"""
    said = gang(tmp_path, bootstrap)
    assert sorted(one for one in said if not one.startswith("bootstrap: ")) == [
        *2 * ["bystander None"],
        *2 * ["heard SIGTERM"],
        *2 * ["heard SIGUSR1"],
    ]


@pytest.mark.parametrize("signal", ["USR1", "TERM"])
def test_a_signal_that_comes_while_a_gangs_script_is_on_its_way_waits_behind_it(
    tmp_path: Path, signal: str
) -> None:
    said = gang(tmp_path, HEARS, srun=f'[ $step = 0 ] || kill -{signal} "$BATCH"')
    assert [one for one in sorted(said) if "heard" in one] == [f"0 heard SIG{signal}", f"1 heard SIG{signal}"]


def test_a_signal_that_comes_before_a_gangs_members_is_told_to_each(tmp_path: Path) -> None:
    said = gang(tmp_path, HEARS, scontrol='kill -USR1 "$BATCH"')
    assert [one for one in sorted(said) if "heard" in one] == ["0 heard SIGUSR1", "1 heard SIGUSR1"]


def test_of_a_gang_that_is_told_to_end_no_more_members_start(tmp_path: Path) -> None:
    assert gang(tmp_path, HEARS, scontrol='kill -TERM "$BATCH"') == ["bootstrap: TERM: no more members start"]


# -- environments

UV = """
if [ "$1" = venv ]; then
    made="${@: -1}"
    mkdir -p "$made/bin"
    ln -s "$PYTHON" "$made/bin/python"
    echo "export IN_ENV=$made" >"$made/bin/activate"
    echo "$*" >>"$0.asked"
else
    exit "${INSTALL_CODE:-0}"
fi
"""


@pytest.fixture
def uv(tmp_path: Path) -> str:
    (tmp_path / "r.txt").write_text("ray\n")
    return tool(tmp_path / "bin", "uv", UV)


def in_environment(
    tmp_path: Path, path: str, *, start: dict[str, object] | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    script = made(
        {"env": {"uv": str(tmp_path / "r.txt")}},
        log_dir=str(tmp_path),
        start={**ask().start, "python_version": "{}.{}".format(*sys.version_info), **(start or {})},
    ).script
    return bash(script, {**TASK, "PYTHON": sys.executable, **environ}, path=path)


def test_an_environment_is_made_once_and_entered(tmp_path: Path, uv: str) -> None:
    for job in ("48", "49"):
        done = in_environment(tmp_path, uv, SLURM_JOB_ID=job)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["environ"]["IN_ENV"].endswith(".made-48")
    assert len((tmp_path / "bin/uv.asked").read_text().splitlines()) == 1
    names = sorted(one.name.partition(".")[2] for one in (tmp_path / "envs").iterdir())
    assert names == ["", "made-48"]


def test_another_file_is_another_environment(tmp_path: Path, uv: str) -> None:
    in_environment(tmp_path, uv)
    (tmp_path / "r.txt").write_text("ray\ntorch\n")
    in_environment(tmp_path, uv)
    assert len((tmp_path / "bin/uv.asked").read_text().splitlines()) == 2


def test_an_environment_that_can_not_be_made_leaves_nothing(tmp_path: Path, uv: str) -> None:
    done = in_environment(tmp_path, uv, INSTALL_CODE="1")
    assert done.returncode == 22
    assert f"ended with 22: env.uv: no environment could be made of {tmp_path}/r.txt" in done.stdout
    assert list((tmp_path / "envs").iterdir()) == []


def test_an_environment_that_does_not_fit_the_head_is_not_kept(tmp_path: Path, uv: str) -> None:
    done = in_environment(tmp_path, uv, start={"ray_version": "0.0.1"})
    assert done.returncode == 22
    assert "the environment does not fit the head: its Ray is" in done.stderr
    assert "the head has 0.0.1" in done.stderr
    assert list((tmp_path / "envs").iterdir()) == []


def test_a_lock_that_nobody_holds_is_taken_over(
    tmp_path: Path, uv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "STALE_S", 0)
    monkeypatch.setattr(environments, "LOOK_S", 0.2)
    in_environment(tmp_path, uv)
    (link,) = (one for one in (tmp_path / "envs").iterdir() if one.is_symlink())
    link.unlink()
    link.with_name(f"{link.name}.lock").mkdir()
    done = in_environment(tmp_path, uv, SLURM_JOB_ID="50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is not held any more" in done.stdout
    assert sorted(one.name for one in (tmp_path / "envs").iterdir()) == [link.name, f"{link.name}.made-50"]
