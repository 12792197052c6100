"""What a compute node adds to the start document, and how it becomes the bootstrap."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.providers.slurm import on_node
from heliostat.providers.slurm.on_node import Address, Failed, Machine

SOURCE = Path(on_node.__file__).read_text(encoding="utf-8")
GIB = 2**30
MACHINE = Machine(cpus=64, memory_bytes=256 * GIB, shm_bytes=128 * GIB)
ARRAY = {
    "SLURM_JOB_ID": "48",
    "SLURM_ARRAY_JOB_ID": "46",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_JOB_PARTITION": "gpu_long",
    "SLURMD_NODENAME": "n7",
}
HERE = [
    Address("lo", "127.0.0.1"),
    Address("eth0", "fd00::5"),
    Address("eth0", "192.0.2.5"),
    Address("ib0", "10.1.2.3"),
]


def payload(**changes: object) -> dict[str, object]:
    start = {"gcs_address": "127.0.0.1:6379", "resources": {"CPU": 2}, "lease_warning_s": 60}
    return {
        "start": start,
        "launch_id": "l1",
        "first": 1000,
        "count": 4,
        "together": False,
        "network": [],
        "temp_root": "/tmp",
        "gpus_asked": True,
        **changes,
    }


def test_an_arrays_task_is_counted_from_its_jobs_first() -> None:
    assert on_node.member_of(payload(), ARRAY) == (1002, "46_2")


def test_a_gangs_rank_is_its_step() -> None:
    environ = {"SLURM_JOB_ID": "48", "SLURM_STEP_ID": "3"}
    assert on_node.member_of(payload(together=True, first=0), environ) == (3, "48")


@pytest.mark.parametrize(
    "environ", [{}, {"SLURM_ARRAY_TASK_ID": "x"}, {"SLURM_ARRAY_TASK_ID": "4"}, {"SLURM_STEP_ID": "1"}]
)
def test_without_a_place_there_is_no_instance(environ: dict[str, str]) -> None:
    with pytest.raises(Failed, match="SLURM_ARRAY_TASK_ID is") as caught:
        on_node.member_of(payload(), environ)
    assert caught.value.code == on_node.NO_INSTANCE


def test_labels_say_where_it_runs() -> None:
    assert on_node.labels_of("46_2", ARRAY) == {
        "heliostat.io/job-id": "46_2",
        "heliostat.io/partition": "gpu_long",
        "heliostat.io/node": "n7",
    }


@pytest.mark.parametrize(
    ("text", "value"), [("a b/c", "a-b-c"), ("_x.", "x"), ("y" * 70, "y" * 63), ("", "")]
)
def test_a_label_is_made_valid(text: str, value: str) -> None:
    assert on_node.label_value(text) == value


@pytest.mark.parametrize(
    ("environ", "gpus"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab,MIG-cd", "SLURM_GPUS_ON_NODE": "4"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"ROCR_VISIBLE_DEVICES": "3"}, 1),
        ({"SLURM_GPUS_ON_NODE": "4"}, 4),
    ],
)
def test_gpus_are_counted_as_they_are_shown(environ: dict[str, str], gpus: int | None) -> None:
    assert on_node.given_gpus(environ) == gpus


@pytest.mark.parametrize(
    ("environ", "given"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "1000"}, 1000 * 2**20),
        ({"SLURM_MEM_PER_CPU": "100"}, 400 * 2**20),
        ({"SLURM_MEM_PER_GPU": "500", "CUDA_VISIBLE_DEVICES": "0,1"}, 1000 * 2**20),
        ({"SLURM_MEM_PER_NODE": "0"}, MACHINE.memory_bytes),
    ],
)
def test_memory_is_what_slurm_says(environ: dict[str, str], given: int | None) -> None:
    assert on_node.given_memory(environ, 4, MACHINE) == given


def test_what_was_given_as_promised_needs_no_words() -> None:
    promise = {"CPU": 8, "GPU": 2, "memory": 20 * GIB, "object_store_memory": 10 * GIB, "licence": 1}
    environ = {"SLURM_CPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_MEM_PER_NODE": "30720"}
    assert on_node.resources_of(promise, environ, MACHINE, gpus_asked=True) == (promise, [])


def test_ray_starts_with_what_is_smaller_and_says_so() -> None:
    promise = {"CPU": 8, "GPU": 2, "memory": 20 * GIB, "object_store_memory": 20 * GIB, "licence": 1}
    environ = {"SLURM_CPUS_ON_NODE": "16", "SLURM_GPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "20480"}
    found, lines = on_node.resources_of(promise, environ, MACHINE, gpus_asked=True)
    half = 10 * GIB
    assert found == {"CPU": 8, "GPU": 1, "memory": half, "object_store_memory": half, "licence": 1}
    assert lines == [
        "slurm gave CPU 16, the node type promises 8: Ray starts with 8",
        "slurm gave GPU 1, the node type promises 2: Ray starts with 1",
        "slurm gave 20480 MiB of memory, the node type promises 40960 MiB: Ray starts with what it gave",
    ]


def test_gpus_that_were_asked_for_and_are_not_shown_are_not_there() -> None:
    found, lines = on_node.resources_of({"GPU": 1}, {}, MACHINE, gpus_asked=True)
    assert found["GPU"] == 0
    assert lines == ["slurm gave GPU 0, the node type promises 1: Ray starts with 0"]


def test_gpus_that_slurm_does_not_manage_are_as_promised() -> None:
    assert on_node.resources_of({"GPU": 1}, {}, MACHINE, gpus_asked=False)[0]["GPU"] == 1


@pytest.mark.parametrize(
    ("promise", "environ", "memory", "store"),
    [
        ({}, {"SLURM_MEM_PER_NODE": "10240"}, 6 * GIB, 3 * GIB),
        ({}, {"SLURM_CPUS_ON_NODE": "32"}, 76.8 * GIB, 38.4 * GIB),
        ({"memory": 8 * GIB}, {"SLURM_MEM_PER_NODE": "10240"}, 8 * GIB, 2 * GIB),
        ({"memory": 10 * GIB}, {"SLURM_MEM_PER_NODE": "10240"}, 10 * GIB, 1 * GIB),
        ({"memory": 1 * GIB}, {"SLURM_MEM_PER_NODE": "10240"}, 1 * GIB, 3 * GIB),
        ({"object_store_memory": 5 * GIB}, {"SLURM_MEM_PER_NODE": "10240"}, 4 * GIB, 5 * GIB),
        ({}, {"SLURM_MEM_PER_NODE": "0"}, 153.6 * GIB, 76.8 * GIB),
        ({"memory": 100 * 2**20}, {"SLURM_MEM_PER_NODE": "100"}, 100 * 2**20, 75 * 2**20),
    ],
)
def test_memory_that_is_not_promised_is_a_share_of_what_was_given(
    promise: dict[str, float], environ: dict[str, str], memory: float, store: float
) -> None:
    found, lines = on_node.resources_of(promise, environ, MACHINE, gpus_asked=True)
    assert found["memory"] == pytest.approx(memory, abs=2)
    assert found["object_store_memory"] == pytest.approx(store, abs=2)
    assert lines == []


def test_an_object_store_fits_into_shared_memory() -> None:
    machine = MACHINE._replace(shm_bytes=GIB)
    found, _ = on_node.resources_of({}, {"SLURM_MEM_PER_NODE": "10240"}, machine, gpus_asked=True)
    assert found["object_store_memory"] == int(0.95 * GIB)


@pytest.mark.parametrize(
    ("network", "ip"),
    [
        (["ib0"], "10.1.2.3"),
        (["eth0"], "192.0.2.5"),
        (["10.1.0.0/16"], "10.1.2.3"),
        (["ib1", "192.0.2.0/24", "ib0"], "192.0.2.5"),
        (["fd00::/8"], "fd00::5"),
        (["127.0.0.0/8"], "127.0.0.1"),
    ],
)
def test_an_address_is_chosen_by_the_first_wish_that_fits(network: list[str], ip: str) -> None:
    assert on_node.chosen_address(network, HERE) == ip


def test_a_network_that_is_not_here_is_said_with_what_is() -> None:
    with pytest.raises(Failed, match=r"network is ib1; this node has none of it, it has .*ib0 10\.1\.2\.3"):
        on_node.chosen_address(["ib1"], HERE)


def test_addresses_are_read_from_ip() -> None:
    text = json.dumps(
        [
            {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "scope": "host"}]},
            {"ifname": "ib0", "addr_info": [{"local": "10.1.2.3", "scope": "global"}, {"family": "x"}]},
            {"ifname": "ib0", "addr_info": [{"local": "fe80::1", "scope": "link"}]},
            {"ifname": "down"},
        ]
    )
    assert on_node.parse_addresses(text) == [Address("lo", "127.0.0.1"), Address("ib0", "10.1.2.3")]


def test_addresses_are_found_without_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(on_node.subprocess, "run", absent)
    assert Address("lo", "127.0.0.1") in on_node.addresses()


@pytest.mark.parametrize(
    ("head", "ip"), [("127.0.0.1:6379", "127.0.0.1"), ("nowhere.invalid:1", None), ("x", None)]
)
def test_the_address_is_that_of_the_way_to_the_head(head: str, ip: str | None) -> None:
    assert on_node.address_towards(head) == ip


def test_a_folder_for_temporary_files_is_short_and_writable(tmp_path: Path) -> None:
    long = str(tmp_path / ("x" * 30))
    environ = {"SLURM_TMPDIR": long, "TMPDIR": "/proc/none/"}
    path, lines = on_node.temp_root_of(None, environ)
    assert path == "/tmp"
    assert lines == [
        f"SLURM_TMPDIR is not used: {long} has more than the 25 bytes that Ray allows",
        "TMPDIR is not used: /proc/none can't be written here",
    ]
    assert on_node.temp_root_of(None, {"TMPDIR": "/dev/shm/"}) == ("/dev/shm", [])
    assert on_node.temp_root_of("/scratch", environ) == ("/scratch", [])


# -- as a process

STAND_IN = """
import base64, json, os, signal, subprocess, sys
if sys.argv[1:] == ["--child"]:
    print("child")
    sys.exit()
document = json.loads(base64.b64decode(os.environ["HELIOSTAT_START"]))
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
waits = signal.sigtimedwait([signal.SIGUSR1], 0)
child = subprocess.run([sys.executable, os.path.abspath(__file__), "--child"], capture_output=True, text=True)
print(json.dumps({
    "document": document,
    "blocked": sorted(blocked),
    "ignored": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
    "usr1": waits is not None,
    "environ": sorted(os.environ),
    "input": sys.stdin.read(),
    "child": child.stdout,
    "beside": sys.path[0],
}))
"""


def run(text: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", SOURCE],
        check=False,
        input=text,
        env={"PATH": os.environ["PATH"], **environ},
        text=True,
        capture_output=True,
        timeout=30,
    )


def test_it_becomes_the_bootstrap_with_the_whole_document() -> None:
    done = run(json.dumps(payload(network=["127.0.0.0/8"])) + "\n" + STAND_IN, ARRAY)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    assert said[-1] == "bootstrap: instance l1.1002 on n7"
    found = json.loads(last)
    assert found["document"] | {"resources": 0} == {
        "gcs_address": "127.0.0.1:6379",
        "resources": 0,
        "lease_warning_s": 60,
        "instance_id": "l1.1002",
        "labels": on_node.labels_of("46_2", ARRAY),
        "node_ip": "127.0.0.1",
        "temp_root": "/tmp",
    }
    assert {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP} <= set(found["blocked"])
    assert (found["ignored"], found["input"], found["child"]) == (False, "", "child\n")
    assert not Path(found["beside"]).exists()


def test_what_the_job_script_has_heard_is_raised_again_once() -> None:
    done = run(json.dumps(payload()) + "\n" + STAND_IN, {**ARRAY, on_node.LEAVE_SOON: "1"})
    assert json.loads(done.stdout.splitlines()[-1])["usr1"] is True
    assert on_node.LEAVE_SOON not in done.stdout


def test_a_signal_that_comes_early_waits_for_the_bootstrap() -> None:
    early = "import os, signal\n" + SOURCE.replace(
        "    try:\n        payload, bootstrap",
        "    os.kill(os.getpid(), signal.SIGUSR1)\n    try:\n        payload, bootstrap",
    ).replace("from __future__ import annotations\n", "")
    done = subprocess.run(
        [sys.executable, "-I", "-c", early],
        check=False,
        input=json.dumps(payload()) + "\n" + STAND_IN,
        env={"PATH": os.environ["PATH"], **ARRAY},
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["usr1"] is True


@pytest.mark.parametrize(
    ("text", "environ", "code", "words"),
    [
        ("no json\n", ARRAY, on_node.BAD_PAYLOAD, "payload can't be read"),
        (json.dumps(payload()), {}, on_node.NO_INSTANCE, "SLURM_ARRAY_TASK_ID is ''"),
        (json.dumps(payload(network=["ib77"])), ARRAY, on_node.NO_ADDRESS, "network is ib77"),
    ],
)
def test_what_can_not_start_ends_with_a_plain_line(
    text: str, environ: dict[str, str], code: int, words: str
) -> None:
    done = run(text, environ)
    assert done.returncode == code
    assert done.stderr == ""
    assert done.stdout.startswith(f"bootstrap: ended with {code}: ")
    assert words in done.stdout


def test_without_files_in_memory_it_takes_one_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_node.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(on_node.os, "memfd_create")
    handle = on_node.nameless_file(b"text")
    try:
        assert Path(f"/proc/self/fd/{handle}").read_bytes() == b"text"
        assert os.get_inheritable(handle)
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(handle)


def test_it_stands_alone() -> None:
    names = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
