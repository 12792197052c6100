"""Environments that a job makes once for all, in a real bash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.providers.slurm import environments
from tests.unit.providers.slurm.scripts import TASK, ask, bash, made, tool

UV = """
if [ "$1" = venv ]; then
    made="${@: -1}"
    mkdir -p "$made/bin"
    ln -s "$PYTHON" "$made/bin/python"
    echo "export IN_ENV=$made" >"$made/bin/activate"
    echo "$*" >>"$0.asked"
else
    exit "${INSTALL_CODE:-0}"
fi
"""


@pytest.fixture
def uv(tmp_path: Path) -> str:
    (tmp_path / "r.txt").write_text("ray\n")
    return tool(tmp_path / "bin", "uv", UV)


def in_environment(
    tmp_path: Path, path: str, *, start: dict[str, object] | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    script = made(
        {"env": {"uv": str(tmp_path / "r.txt")}},
        log_dir=str(tmp_path),
        start={**ask().start, "python_version": "{}.{}".format(*sys.version_info), **(start or {})},
    ).script
    return bash(script, {**TASK, "PYTHON": sys.executable, **environ}, path=path)


def test_an_environment_is_made_once_and_entered(tmp_path: Path, uv: str) -> None:
    for job in ("48", "49"):
        done = in_environment(tmp_path, uv, SLURM_JOB_ID=job)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["environ"]["IN_ENV"].endswith(".made-48")
    assert len((tmp_path / "bin/uv.asked").read_text().splitlines()) == 1
    names = sorted(one.name.partition(".")[2] for one in (tmp_path / "envs").iterdir())
    assert names == ["", "made-48"]


def test_another_file_is_another_environment(tmp_path: Path, uv: str) -> None:
    in_environment(tmp_path, uv)
    (tmp_path / "r.txt").write_text("ray\ntorch\n")
    in_environment(tmp_path, uv)
    assert len((tmp_path / "bin/uv.asked").read_text().splitlines()) == 2


def test_an_environment_that_can_not_be_made_leaves_nothing(tmp_path: Path, uv: str) -> None:
    done = in_environment(tmp_path, uv, INSTALL_CODE="1")
    assert done.returncode == 22
    assert f"ended with 22: env.uv: no environment could be made of {tmp_path}/r.txt" in done.stdout
    assert list((tmp_path / "envs").iterdir()) == []


def test_an_environment_that_does_not_fit_the_head_is_not_kept(tmp_path: Path, uv: str) -> None:
    done = in_environment(tmp_path, uv, start={"ray_version": "0.0.1"})
    assert done.returncode == 22
    assert "the environment does not fit the head: its Ray is" in done.stderr
    assert "the head has 0.0.1" in done.stderr
    assert list((tmp_path / "envs").iterdir()) == []


def test_a_lock_that_nobody_holds_is_taken_over(
    tmp_path: Path, uv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "STALE_S", 0)
    monkeypatch.setattr(environments, "LOOK_S", 0.2)
    in_environment(tmp_path, uv)
    (link,) = (one for one in (tmp_path / "envs").iterdir() if one.is_symlink())
    link.unlink()
    link.with_name(f"{link.name}.lock").mkdir()
    done = in_environment(tmp_path, uv, SLURM_JOB_ID="50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is not held any more" in done.stdout
    assert sorted(one.name for one in (tmp_path / "envs").iterdir()) == [link.name, f"{link.name}.made-50"]
