"""What the script of a gang does with its members, in a real bash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.providers.slurm.scripts import HEARS, TASK, bash, made, tool


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
