"""What sbatch is asked for."""

from __future__ import annotations

import math

import pytest

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.arguments import notice_s, time_limit_s
from heliostat.providers.slurm.logs import log_path
from heliostat.providers.slurm.options import parse_section
from heliostat.providers.slurm.tags import parse_comment
from tests.unit.providers.slurm.scripts import arguments, ask, made

GIB = 2**30


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
