"""What a cluster file may say to the local backend, and the words for what it may not."""

from __future__ import annotations

import pytest

from heliostat.providers.local import check_options, check_section


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"gpus": "auto", "cpus": "auto", "memory": "auto"},
        {"gpus": 4, "cpus": 8, "memory": "8GiB", "temp_root": "/scratch", "port_range": [2000, 3000]},
        {"gpus": [0, "MIG-x"], "terminate_grace_s": 0},
    ],
)
def test_a_good_section_has_no_findings(section: dict[str, object]) -> None:
    assert check_section(section) == []


def test_everything_wrong_in_a_section_is_found_at_once() -> None:
    found = dict(
        check_section({"gpu": 1, "cpus": 0, "gpus": True, "memory": "much", "port_range": [5, 6], "x": 1})
    )
    assert sorted(found) == ["cpus", "gpu", "gpus", "memory", "port_range", "x"]
    assert found["gpu"].startswith("unknown key (did you mean gpus?); allowed are cpus, gpus, memory")
    assert found["x"].startswith("unknown key; allowed are")
    assert found["cpus"] == "0; allowed is auto or a whole number of CPUs"
    assert found["gpus"].startswith("true; allowed is auto, a number")
    assert found["memory"].startswith('"much"; allowed is')


@pytest.mark.parametrize("grace_s", [-1, True, "soon", float("inf")])
def test_a_grace_time_is_a_number_of_seconds(grace_s: object) -> None:
    (finding,) = check_section({"terminate_grace_s": grace_s})
    assert finding[0] == "terminate_grace_s"
    assert finding[1].endswith("allowed is a number of seconds, 0 or more")


def test_a_long_value_is_shortened() -> None:
    (finding,) = check_section({"temp_root": "x" * 200})
    assert "…; allowed is an absolute path" in finding[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"log_monitor": False, "ray_args": ["--num-gpus=1"], "environment": {"OMP_NUM_THREADS": "1"}},
        {"object_store_memory": "1GiB"},
        {"object_store_memory": 2**30, "environment": {}},
    ],
)
def test_good_options_have_no_findings(options: dict[str, object]) -> None:
    assert check_options(options) == []


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        ({"log_monitors": True}, "log_monitors", "unknown key (did you mean log_monitor?)"),
        ({"log_monitor": "no"}, "log_monitor", '"no"; allowed is true or false'),
        ({"ray_args": "--x"}, "ray_args", '"--x"; allowed is a list of text'),
        ({"ray_args": ["--a", 5]}, "ray_args.1", "5; allowed is text"),
        ({"object_store_memory": 0}, "object_store_memory", "0; allowed is a number of bytes"),
        ({"environment": ["A"]}, "environment", '["A"]; allowed is a mapping'),
        ({"environment": {"A": 1}}, "environment.A", "1; allowed is text, so put it in quotes"),
        ({"environment": {"a.b": "c"}}, "environment", '"a.b" is no name of a variable'),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "0"}}, "environment.CUDA_VISIBLE_DEVICES", "not allowed"),
        ({"environment": {"RAY_AUTH_TOKEN": "x"}}, "environment.RAY_AUTH_TOKEN", "not allowed"),
    ],
)
def test_a_wrong_option_is_found(options: dict[str, object], key: str, words: str) -> None:
    (finding,) = check_options(options)
    assert finding[0] == key
    assert words in finding[1]
