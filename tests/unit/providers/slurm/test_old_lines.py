"""`#SBATCH` lines of job scripts become keys, or it is said why not."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.providers.slurm import check_options, read_old_lines


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("#SBATCH --partition=cpu", {"partition": "cpu"}),
        ("#SBATCH -p gpu,cpu", {"partition": "gpu,cpu"}),
        ("#SBATCH   -pcpu  # which one", {"partition": "cpu"}),
        ("#SBATCH --account abc --qos=q -C 'a&b'", {"account": "abc", "qos": "q", "constraint": "a&b"}),
        ("#SBATCH --reservation=username", {"reservation": "username"}),
        ("#SBATCH -t 1-12:00:00", {"time_limit": "1-12:00:00"}),
        ("#SBATCH --time=90 --time-min=30", {"time_limit": "90", "time_min": "30"}),
        ("#SBATCH --exclusive", {"exclusive": True}),
        ("#SBATCH --exclusive=user", {"exclusive": "user"}),
        ("#SBATCH --mem=4G", {"memory": "4GiB"}),
        ("#SBATCH --mem 4000", {"memory": "4000MiB"}),
        ("#SBATCH --mem=0", {"memory_request": False}),
        ("#SBATCH -c 8", {"cpus_per_task": 8}),
        ("#SBATCH --gres=gpu:a100:2", {"GPU": 2, "gpu_type": "a100", "gpu_request": "gres"}),
        ("#SBATCH --gres=gpu", {"GPU": 1, "gpu_request": "gres"}),
        ("#SBATCH --gres=gpu:a100", {"GPU": 1, "gpu_type": "a100", "gpu_request": "gres"}),
        ("#SBATCH -G 4", {"GPU": 4, "gpu_request": "gpus"}),
        ("#SBATCH --gpus-per-node=v100:1", {"GPU": 1, "gpu_type": "v100", "gpu_request": "gpus-per-node"}),
        ("#SBATCH -w node1 -x node2", {"sbatch": ["--nodelist=node1", "--exclude=node2"]}),
        ("#SBATCH --mail-type=FAIL --oversubscribe", {"sbatch": ["--mail-type=FAIL", "--oversubscribe"]}),
        ("#SBATCH --mem-per-cpu=2G", {"sbatch": ["--mem-per-cpu=2G"]}),
        ("# SBATCH --partition=off", {}),
        ("##SBATCH --partition=off", {}),
        ("", {}),
        ("#SBATCH", {}),
    ],
)
def test_each_becomes_what_the_backend_takes(line: str, options: dict[str, Any]) -> None:
    found, notes, wrong = read_old_lines([line])
    assert (found, notes, wrong) == (options, [], [])
    assert check_options({key: value for key, value in found.items() if key != "GPU"}) == []


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (
            "#SBATCH --nodes=1",
            "--nodes is not passed on: the number of nodes and tasks follows from the node",
        ),
        ("#SBATCH -J name", "--job-name is not passed on: jobs are known by it"),
        ("#SBATCH -o out.%j", "--output is not passed on: the log's place is fixed"),
        ("#SBATCH --export=ALL", "--export is not passed on: the job has the login environment"),
    ],
)
def test_what_is_set_for_each_job_is_told(line: str, note: str) -> None:
    found, [(index, said)], wrong = read_old_lines(["", line])
    assert (found, index, wrong) == ({}, 1, [])
    assert said.startswith(note)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("module load x", "allowed is a line that begins with #SBATCH"),
        ("#SBATCH partition", "partition is no option of sbatch"),
        ("#SBATCH --gres=craynetwork:0", "of generic resources only GPUs have a place here"),
        ("#SBATCH --mem=lots", "--mem=lots; allowed is a number with K, M, G or T"),
        ("#SBATCH -c many", "--cpus-per-task=many; allowed is a whole number"),
        ("#SBATCH --exclusive=mcs", "allowed is --exclusive or --exclusive=user"),
        ("#SBATCH --comment='", "No closing quotation"),
        ("#SBATCH --part=x", "--part=x: allowed are other options than --partition: use the key partition"),
    ],
)
def test_what_means_nothing_is_wrong(line: str, text: str) -> None:
    found, notes, [(index, said)] = read_old_lines([line])
    assert (found, notes, index) == ({}, [], 0)
    assert text in said
