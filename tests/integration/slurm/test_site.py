"""The site that the tests run on is a real Slurm: it does what they rely on, and goes without a trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import slurm_site
from tests.slurm_site import Kind, SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLEEP = "#!/bin/bash\nexec sleep 600\n"


def submit(site: SlurmSite, *options: str, script: str = SLEEP, user: str | None = None) -> str:
    argv = ("sbatch", "--parsable", "--output=/dev/null", "--chdir=/", *options)
    return site.run(*argv, stdin=script, user=user).stdout.strip()


def test_a_job_runs_and_its_output_is_there(slurm: SlurmSite, tmp_path: Path) -> None:
    job = submit(slurm, f"--output={tmp_path}/log", script="#!/bin/bash\necho on $SLURMD_NODENAME\n")
    slurm.wait_for_states({job: "COMPLETED"})
    assert (tmp_path / "log").read_text() == "on n1\n"


def test_an_array_is_listed_task_by_task_and_cancelled_in_part(slurm: SlurmSite) -> None:
    job = submit(slurm, "--array=0-2", "--comment=mine", "--job-name=three")
    slurm.wait_for_states({f"{job}_{task}": "RUNNING" for task in range(3)})
    slurm.run("scancel", f"{job}_1")
    slurm.wait_for_states({f"{job}_0": "RUNNING", f"{job}_1": "CANCELLED", f"{job}_2": "RUNNING"})
    row = next(row for row in slurm.jobs(ended=False) if row.id == f"{job}_0")
    assert (row.name, row.comment, row.user) == ("three", "mine", "root")


def test_steps_of_one_job_run_on_their_nodes(slurm: SlurmSite, tmp_path: Path) -> None:
    script = "#!/bin/bash\nsrun --ntasks-per-node=1 bash -c 'echo $SLURMD_NODENAME'\n"
    job = submit(slurm, "--nodes=3", f"--output={tmp_path}/log", script=script)
    slurm.wait_for_states({job: "COMPLETED"})
    assert sorted((tmp_path / "log").read_text().split()) == ["n1", "n2", "n3"]


def test_a_job_for_a_partition_that_is_down_waits(slurm: SlurmSite) -> None:
    job = submit(slurm, "--partition=off")
    slurm.wait_for_states({job: "PENDING"})


def test_a_node_that_dies_takes_its_jobs_with_it_and_comes_back(slurm: SlurmSite) -> None:
    job = submit(slurm, "--nodelist=n2", "--no-requeue")
    slurm.wait_for_states({job: "RUNNING"})
    slurm.stop_node("n2")
    assert slurm.node_states()["n2"].startswith("down")
    slurm.wait_for_states({job: "NODE_FAIL"})
    slurm.start_node("n2")
    assert slurm.node_states()["n2"] == "idle"


def test_jobs_outlive_the_controller(slurm: SlurmSite) -> None:
    job = submit(slurm)
    slurm.wait_for_states({job: "RUNNING"})
    slurm.stop_controller()
    slurm.start_controller()
    slurm.wait_for_states({job: "RUNNING"})


def test_jobs_outlive_the_controllers_crash_once_their_state_is_saved(slurm: SlurmSite) -> None:
    job = submit(slurm)
    slurm.wait_for_states({job: "RUNNING"})
    slurm.save_state()
    slurm.stop_controller(gently=False)
    slurm.start_controller()
    slurm.wait_for_states({job: "RUNNING"})


def test_every_user_of_the_machine_may_submit(slurm: SlurmSite) -> None:
    job = submit(slurm, user="nobody")
    slurm.wait_for_states({job: "RUNNING"})
    assert [row.user for row in slurm.jobs(ended=False)] == ["nobody"]


def test_gpus_are_handed_out_one_by_one(slurm_folder: Path, tmp_path: Path) -> None:
    kinds = [Kind("g", 1, cpus=8, memory_mb=8000, gpus=2, gpu_type="a100", features=("ib", "fast"))]
    with slurm_site.start(slurm_folder / "gpus", nodes=1, kinds=kinds) as site:
        script = "#!/bin/bash\necho $CUDA_VISIBLE_DEVICES\nexec sleep 600\n"
        job = submit(
            site,
            "--array=0-2",
            "--gres=gpu:a100:1",
            "--constraint=ib",
            f"--output={tmp_path}/%a",
            script=script,
        )
        site.wait_for_states({f"{job}_0": "RUNNING", f"{job}_1": "RUNNING", f"{job}_2": "PENDING"})
        logs = [tmp_path / "0", tmp_path / "1"]
        site.wait_for(lambda: all(log.exists() and log.read_text() for log in logs), "both have said it")
        assert sorted(log.read_text() for log in logs) == ["0\n", "1\n"]


def test_settings_win_over_ours(slurm_folder: Path) -> None:
    more = "MaxArraySize=11\nenforcepartlimits=ALL\nPartitionName=extra Nodes=n1"
    with slurm_site.start(slurm_folder / "set", nodes=1, extra_conf=more) as site:
        too_long = site.run("sbatch", "--array=0-11", stdin=SLEEP, check=False)
        assert "Invalid job array specification" in too_long.stderr
        submit(site, "--array=0-10", "--partition=extra")


def test_two_sites_do_not_see_each_other(slurm: SlurmSite, slurm_folder: Path) -> None:
    with slurm_site.start(slurm_folder / "other", nodes=2) as other:
        job = submit(other, "--job-name=of-the-other")
        other.wait_for_states({job: "RUNNING"})
        assert "of-the-other" not in {row.name for row in slurm.jobs(ended=False)}
        assert sorted(other.node_states()) == ["n1", "n2"]


def test_nothing_is_left_even_of_a_job_that_hides(slurm_folder: Path, tmp_path: Path) -> None:
    folder = slurm_folder / "gone"
    hide = f"/usr/bin/env -i /usr/bin/setsid /bin/sleep 600 & echo $! > {tmp_path}/pid; exec sleep 600"
    script = f"#!/bin/bash\ntrap '' TERM\n{hide}\n"
    with slurm_site.start(folder, nodes=1) as site:
        job = submit(site, "--export=NONE", script=script)
        site.wait_for_states({job: "RUNNING"})
        site.wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "a pid")
        hidden = int((tmp_path / "pid").read_text())
        os.kill(hidden, 0)
    assert not folder.exists()
    assert not Path(f"/proc/{hidden}").exists() or "State:\tZ" in Path(f"/proc/{hidden}/status").read_text()


def test_a_start_that_fails_says_why_and_leaves_nothing(slurm_folder: Path) -> None:
    folder = slurm_folder / "bad"
    with (
        pytest.raises(RuntimeError, match=r"slurmctld ended\n(.|\n)*nowhere"),
        slurm_site.start(folder, partitions=["PartitionName=bad Nodes=nowhere Default=YES"]),
    ):
        pass
    assert not folder.exists()
