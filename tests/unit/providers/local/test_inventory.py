"""Parsers of what the system says; texts as the tools print them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from heliostat.ports.errors import InvalidRequest, Unavailable
from heliostat.providers.local import inventory
from heliostat.providers.local.inventory import (
    Gpu,
    declared_gpus,
    head_gpus,
    parse_cgroup_paths,
    parse_cpu_max,
    parse_cpu_quota,
    parse_driver_information,
    parse_meminfo,
    parse_memory_limit,
    parse_nvidia_smi,
    parse_visible_devices,
    read_gpus,
    read_machine,
    usable_gpus,
    whole_cpus,
)
from heliostat.providers.local.options import LocalOptions, parse_bytes, parse_options

SMI = """\
1, GPU-9a4c1f9e-5d0b-4f6e-8a37-5a0b7a3c2d11, 81559 MiB, NVIDIA H100 80GB HBM3
0, GPU-0f3b2a1c-6b1e-4a8d-9c55-1d2e3f4a5b6c, 81559 MiB, NVIDIA H100 80GB HBM3
"""


def test_nvidia_smi_lines_come_in_the_order_of_their_index() -> None:
    gpus = parse_nvidia_smi(SMI)
    assert [gpu.index for gpu in gpus] == [0, 1]
    assert gpus[0] == Gpu(
        0, "GPU-0f3b2a1c-6b1e-4a8d-9c55-1d2e3f4a5b6c", 81559 * 2**20, "NVIDIA H100 80GB HBM3"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        "index, uuid, memory.total [MiB], name\n",
    ],
)
def test_what_is_no_gpu_line_is_left_out(text: str) -> None:
    assert parse_nvidia_smi(text) == ()


def test_memory_that_is_not_told_is_zero() -> None:
    (gpu,) = parse_nvidia_smi("0, GPU-1, [N/A], NVIDIA GH200, special edition")
    assert gpu == Gpu(0, "GPU-1", 0, "NVIDIA GH200, special edition")


def test_driver_files_are_numbered_by_pci_address() -> None:
    text = "Model: \t\t Tesla T4\nIRQ:   \t\t 30\nGPU UUID: \t GPU-{}\nDevice Minor: \t 0\n"
    gpus = parse_driver_information({"0000:81:00.0": text.format("b"), "0000:3b:00.0": text.format("a")})
    assert [(gpu.index, gpu.uuid, gpu.name) for gpu in gpus] == [
        (0, "GPU-a", "Tesla T4"),
        (1, "GPU-b", "Tesla T4"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("void", ()),
        ("2,3", ("2", "3")),
        (" 2 , 0 ", ("2", "0")),
        ("0,-1,1", ("0",)),
        ("GPU-1a2b,MIG-3c4d", ("GPU-1a2b", "MIG-3c4d")),
    ],
)
def test_visible_devices(value: str | None, expected: tuple[str, ...] | None) -> None:
    assert parse_visible_devices(value) == expected


FOUR = tuple(Gpu(index, f"GPU-{index}") for index in range(4))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ("0", "1", "2", "3")),
        ((), ()),
        (("3", "1"), ("3", "1")),
        (("1", "1"), ("1",)),
        (("1", "9", "2"), ("1",)),
        (("MIG-a", "GPU-3"), ("MIG-a", "GPU-3")),
    ],
)
def test_usable_gpus(visible: tuple[str, ...] | None, expected: tuple[str, ...]) -> None:
    assert usable_gpus(FOUR, visible) == expected


def test_declared_gpus() -> None:
    assert declared_gpus(3, None) == ("0", "1", "2")
    assert declared_gpus(2, ("4", "5", "6")) == ("4", "5")
    assert declared_gpus(2, ()) == ("0", "1")
    assert declared_gpus(("7", "MIG-x"), ("0",)) == ("7", "MIG-x")


def test_the_head_takes_the_first_gpus() -> None:
    gpus = ("2", "3", "5")
    assert head_gpus(gpus, {"CPU": 4}) == ()
    assert head_gpus(gpus, {"GPU": 1}) == ("2",)
    assert head_gpus(gpus, {"GPU": 1.5}) == ("2", "3")
    with pytest.raises(InvalidRequest, match=r"asks for 4 GPU\(s\), this machine has 3"):
        head_gpus(gpus, {"GPU": 4})


def test_meminfo() -> None:
    assert parse_meminfo("MemTotal:       49379724 kB\nMemFree: 1 kB\n") == 49379724 * 1024
    assert parse_meminfo("") == 0


def test_cgroup_paths_of_both_versions() -> None:
    both = parse_cgroup_paths("4:memory:/slice/a\n2:cpu,cpuacct:/b\n0::/user.slice\n")
    assert both == {"memory": "/slice/a", "cpu": "/b", "cpuacct": "/b", "": "/user.slice"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("", None), ("5 0", None)],
)
def test_cpu_max(text: str, expected: float | None) -> None:
    assert parse_cpu_max(text) == expected


def test_cpu_quota_of_version_1() -> None:
    assert parse_cpu_quota("-1\n", "100000\n") is None
    assert parse_cpu_quota("400000\n", "100000\n") == 4.0
    assert parse_cpu_quota("", "") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max\n", None), ("9223372036854771712\n", None), ("8589934592\n", 2**33), ("", None)],
)
def test_memory_limit(text: str, expected: int | None) -> None:
    assert parse_memory_limit(text) == expected


def test_cpus_are_whole_and_at_least_one() -> None:
    assert whole_cpus(8, []) == 8
    assert whole_cpus(8, [3.5, 6]) == 3
    assert whole_cpus(8, [0.2]) == 1


def test_limits_of_all_ancestors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = tmp_path / "slice/job"
    leaf.mkdir(parents=True)
    (leaf / "memory.max").write_text("max\n")
    (leaf.parent / "memory.max").write_text("1073741824\n")
    (leaf / "cpu.max").write_text("300000 100000\n")
    (leaf.parent / "cpu.max").write_text("200000 100000\n")
    monkeypatch.setattr(inventory, "CGROUP_ROOT", tmp_path)
    assert min(inventory._cgroup_cpus({"": "/slice/job"})) == 2.0
    assert inventory._cgroup_memory({"": "/slice/job"}) == [2**30]
    assert inventory._cgroup_memory({"": "/../../host/path"}) == []


def test_this_machine_has_something() -> None:
    machine = read_machine(LocalOptions())
    assert machine.cpus >= 1
    assert machine.memory_bytes > 2**26
    declared = read_machine(LocalOptions(cpus=77, memory_bytes=5))
    assert (declared.cpus, declared.memory_bytes) == (77, 5)


def _nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(inventory, "NVIDIA_SMI", (str(tool), *inventory.NVIDIA_SMI[1:]))
    monkeypatch.setattr(inventory, "DRIVER_FOLDER", folder / "no-driver")


def test_gpus_are_asked_for_within_the_outer_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nvidia_smi(tmp_path, "echo '0, GPU-a, 10 MiB, x'; echo '1, GPU-b, 10 MiB, x'", monkeypatch)
    assert read_gpus(LocalOptions(), {}) == ("0", "1")
    assert read_gpus(LocalOptions(), {"CUDA_VISIBLE_DEVICES": "1"}) == ("1",)
    assert read_gpus(LocalOptions(gpus=5), {}) == ("0", "1", "2", "3", "4")


def test_a_failing_or_missing_nvidia_smi_means_what_the_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nvidia_smi(tmp_path, "echo broken; exit 9", monkeypatch)
    assert read_gpus(LocalOptions(), {}) == ()
    folder = tmp_path / "no-driver" / "0000:3b:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: \t T4\nGPU UUID: GPU-q\n")
    (tmp_path / "nvidia-smi").unlink()
    assert read_gpus(LocalOptions(), {}) == ("0",)


def test_a_hanging_nvidia_smi_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(tmp_path, "exec sleep 60", monkeypatch)
    monkeypatch.setattr(inventory, "NVIDIA_SMI_DEADLINE_S", 0.1)
    with pytest.raises(Unavailable, match=r"nvidia-smi did not answer within 0\.1 s"):
        read_gpus(LocalOptions(), {})


def test_options() -> None:
    options = parse_options(
        {"gpus": [0, "MIG-x"], "cpus": 3, "memory": "1.5 GiB", "port_range": [2000, 3000], "temp_root": "/t"}
    )
    assert options == LocalOptions(("0", "MIG-x"), 3, 3 * 2**29, "/t", (2000, 3000), None)
    assert parse_options({"gpus": "auto", "cpus": "auto", "memory": "auto"}) == LocalOptions()


@pytest.mark.parametrize(
    "section",
    [
        {"gpus": -1}, {"gpus": True}, {"gpus": [1, 1]}, {"gpus": ["a,b"]}, {"gpus": "two"},
        {"cpus": 0}, {"cpus": 1.5}, {"memory": "much"}, {"memory": 0}, {"temp_root": "tmp"},
        {"port_range": [5, 6]}, {"port_range": [3000, 2000]}, {"port_range": 7},
        {"terminate_grace_s": "soon"}, {"gpu": 1},
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(section: dict[str, object]) -> None:
    (key,) = section
    with pytest.raises(InvalidRequest, match=rf"provider\.backends\.local\.{key} is"):
        parse_options(section)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), ("5", 5), ("2k", 2000), ("2KiB", 2048), ("1 gb", 10**9), ("x", None), (-1, None), (True, None)],
)
def test_sizes(value: object, expected: int | None) -> None:
    assert parse_bytes(value) == expected
