"""Which devices a call with GPUs is shown, on nodes as their drivers and containers tell of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.gateway.work.gpu_devices import Unclear, every, own

NAMES = ("GPU-aa11", "GPU-bb22", "GPU-bb33", "GPU-dd44")
MINORS = (2, 3, 0, 1)
"""In the order of the PCI bus, which the numbers of devices need not follow."""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-caps", *(f"nvidia{minor}" for minor in MINORS)):
        (tmp_path / "dev" / name).touch()
    for at, (name, minor) in enumerate(zip(NAMES, MINORS, strict=True)):
        folder = tmp_path / "proc/driver/nvidia/gpus" / f"0000:{at}5:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t Some\nGPU UUID: \t {name}\nDevice Minor: \t {minor}\n"
        )
    return tmp_path


def shown(node: Path, visible: str) -> tuple[list[str], str]:
    found = own({"CUDA_VISIBLE_DEVICES": visible}, root=str(node))
    return [os.path.basename(path) for path in found.devices], found.environment["CUDA_VISIBLE_DEVICES"]


CONTROLS = ["nvidiactl", "nvidia-uvm"]


@pytest.mark.parametrize(
    ("visible", "devices", "numbers"),
    [
        ("0", ["nvidia2"], "0"),
        ("2", ["nvidia0"], "0"),
        ("3,1", ["nvidia3", "nvidia1"], "1,0"),
        ("GPU-bb3", ["nvidia0"], "0"),
        ("GPU-dd44, 0", ["nvidia2", "nvidia1"], "1,0"),
    ],
)
def test_a_call_sees_its_own(node: Path, visible: str, devices: list[str], numbers: str) -> None:
    assert shown(node, visible) == (devices + CONTROLS, numbers)


@pytest.mark.parametrize("visible", ["", "4", "-1", "GPU-bb", "GPU-ee", "MIG-aa11", "GPU-", "all"])
def test_what_is_unclear_shows_nothing(node: Path, visible: str) -> None:
    with pytest.raises(Unclear, match="CUDA_VISIBLE_DEVICES has "):
        shown(node, visible)


def test_places_are_those_among_what_a_job_can_open(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path.endswith(("nvidia0", "nvidia1")))
    assert shown(node, "0") == (["nvidia0", *CONTROLS], "0")
    with pytest.raises(Unclear):
        shown(node, "2")


def test_a_container_without_the_drivers_words_has_the_devices_numbers(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia10", "nvidia9", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    assert shown(tmp_path, "1") == (["nvidia10", "nvidiactl"], "0")


def test_other_makers_are_not_told_apart(tmp_path: Path) -> None:
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    (tmp_path / "dev" / "kfd").touch()
    found = own({"HIP_VISIBLE_DEVICES": "1"}, root=str(tmp_path))
    assert [os.path.basename(path) for path in found.devices] == ["kfd", "dri"]
    assert not found.environment


def test_all_of_a_node(node: Path) -> None:
    assert len(every(root=str(node)).devices) == 8
