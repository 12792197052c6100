"""What a cluster file may say to the Slurm backend, and the words for what it may not."""

from __future__ import annotations

import pytest

from heliostat.providers.slurm.checks import check_options, check_section


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"account": "p1", "partition": ["a", "b"], "time_limit": "04:00:00", "ssh": {"host": "login"}},
        {"work_dir": "/shared/me", "command_deadline_s": 10, "user": "ada", "network": "10.1.0.0/16"},
        {
            "setup": ["module load cuda", "source ~/env/bin/activate"],
            "sbatch": ["--mail-type=END", "--tmp=1G"],
        },
        {"environment": {"OMP_NUM_THREADS": "1"}, "container": {"image": "docker://rayproject/ray"}},
        {"account": None},
    ],
)
def test_a_good_section_has_no_findings(section: dict[str, object]) -> None:
    assert check_section(section) == []


def test_everything_wrong_is_found_at_once() -> None:
    found = dict(
        check_section(
            {
                "partitions": "x",
                "time_limit": "4h",
                "exclusive": "yes",
                "gpu_request": "all",
                "sbatch": ["--array=1", "--tmp=1G", "--wrap=x"],
                "environment": {"A": 1, "RAY_ADDRESS": "x", "OK": "1"},
                "env": {"uv": "requirements.txt"},
                "container": {"runtime": "docker", "image": "x"},
                "network": ["ib0", "10.1.0.0/99"],
                "port_range": [5, 6],
            }
        )
    )
    assert sorted(found) == [
        "container.runtime",
        "env.uv",
        "environment.A",
        "environment.RAY_ADDRESS",
        "exclusive",
        "gpu_request",
        "network.1",
        "partitions",
        "port_range",
        "sbatch.0",
        "sbatch.2",
        "time_limit",
    ]
    assert found["partitions"].startswith("unknown key (did you mean partition?); allowed are account, ")
    assert found["time_limit"].startswith('"4h"; allowed is minutes, "minutes:seconds"')
    assert found["gpu_request"].endswith("gres, gpus, gpus-per-node, gpus-per-task or none")
    assert found["environment.A"] == "1; allowed is text, so put it in quotes"
    assert found["environment.RAY_ADDRESS"] == '"x"; allowed is none: it is set for each worker'
    assert found["container.runtime"] == '"docker"; allowed is apptainer or singularity'


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        ({"work_dir": "/x"}, "work_dir", "unknown key"),
        ({"time-limit": 5}, "time-limit", "did you mean time_limit?"),
        ({"partition": ""}, "partition", "allowed is a name"),
        ({"partition": ["a", 5]}, "partition.1", "in quotes where it looks like a number"),
        ({"constraint": "-x"}, "constraint", "does not begin with -"),
        ({"account": 12}, "account", "in quotes"),
        ({"comment": "a\nb"}, "comment", "one line"),
        ({"setup": "module load x"}, "setup", "a list of text"),
        ({"setup": ["x"], "env": {"pip": "/x"}}, "env", "{uv: requirements file}"),
        ({"memory": "much"}, "memory", "a number of bytes"),
        ({"cpus_per_task": 0}, "cpus_per_task", "1 or more"),
        ({"nice": 1.5}, "nice", "a whole number"),
        ({"drain_notice_s": -1}, "drain_notice_s", "a number of seconds"),
        ({"temp_root": "tmp"}, "temp_root", "an absolute path"),
        ({"environment": {"a.b": "c"}}, "environment", "a variable's name"),
        ({"time_limit": 5, "time_min": 10}, "time_min", "at most time_limit"),
    ],
)
def test_a_wrong_option_is_found(options: dict[str, object], key: str, words: str) -> None:
    (finding,) = check_options(options)
    assert finding[0] == key
    assert words in finding[1]
