"""PyTorch for the tests: only a build for the CPU, and a set-up that goes on without."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.repo import tree
from tools import environment, torch_cpu

URL = "file:///wheels/torch-2.13.0%2Bcpu.whl"


def report(*requires: str) -> dict[str, Any]:
    download = {"url": URL, "archive_info": {"hashes": {"sha256": "ab12"}}}
    return {"install": [{"metadata": {"requires_dist": list(requires)}, "download_info": download}]}


def test_a_cpu_build_is_taken_with_its_hash() -> None:
    assert torch_cpu.cpu_wheel(report("sympy>=1.13", "filelock")) == f"torch @ {URL}#sha256=ab12"


@pytest.mark.parametrize(
    ("archive", "address"),
    [
        ({"hash": "sha256=ab12", "hashes": {"sha256": "ab12"}}, f"{URL}#sha256=ab12"),
        ({"hash": "sha256=ab12"}, f"{URL}#sha256=ab12"),
        ({}, URL),
    ],
    ids=["pip 23.1", "pip 23.0", "no hash"],
)
def test_pips_of_all_ages_are_understood(archive: dict[str, Any], address: str) -> None:
    found = report()
    found["install"][0]["download_info"]["archive_info"] = archive
    assert torch_cpu.cpu_wheel(found) == f"torch @ {address}"


@pytest.mark.parametrize("wanted", ["nvidia-cublas==13.4", "cuda-toolkit[cudart]==13.2", "triton==3.9"])
def test_a_build_for_gpus_is_refused(wanted: str) -> None:
    with pytest.raises(torch_cpu.NotHadError, match="also wants 1 packages"):
        torch_cpu.cpu_wheel(report("sympy>=1.13", wanted))


def test_where_there_is_none_every_reason_is_left_for_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(python: str) -> list[str]:
        raise torch_cpu.NotHadError("no network")

    venv = an_environment(tmp_path)
    monkeypatch.setattr(environment, "TOOLS", environment.TOOLS / "none" / tmp_path.name)
    monkeypatch.setattr(torch_cpu, "PLACES", {"pip": refuse, "uv": refuse})
    assert torch_cpu.provide(venv, "uv") == "by pip: no network; by uv: no network"
    assert (venv / torch_cpu.MISSING).read_text() == "by pip: no network; by uv: no network\n"


def test_one_that_is_there_is_linked_and_the_reason_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = an_environment(tmp_path)
    (venv / torch_cpu.MISSING).write_text("no network\n")
    name = f"torch-{torch_cpu.VERSION}-python{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / "tools" / name).mkdir(parents=True)
    (tmp_path / "tools" / name / ".complete").touch()
    monkeypatch.setattr(environment, "TOOLS", tmp_path / "tools")
    assert torch_cpu.provide(venv, "uv") is None
    links = list(venv.glob(f"lib/python*/site-packages/{torch_cpu.LINK}"))
    assert [link.read_text() for link in links] == [f"{tmp_path / 'tools' / name}\n"]
    assert not (venv / torch_cpu.MISSING).exists()


def an_environment(folder: Path) -> Path:
    venv = folder / "venv"
    command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
    subprocess.run(command, check=True, timeout=60)
    return venv


def test_what_pytorch_needs_is_locked_for_the_tests() -> None:
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {one.partition(">")[0] for one in project["dependency-groups"]["examples"]}
    wanted = {"filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"}
    assert wanted <= names
    assert "torch" not in names
