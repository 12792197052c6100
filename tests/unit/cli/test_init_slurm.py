"""`heliostat init slurm`, with commands that print what a real site's printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Invoke

CAPTURED = Path(__file__).parents[1] / "providers" / "slurm" / "captured"
SCONTROL = """\
#!/bin/sh
case "$2" in
config) cat {folder}/config.txt;;
*) cat {folder}/partitions.txt;;
esac
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the commands print, which a test may change."""
    folder = tmp_path / "site"
    folder.mkdir()
    for path in CAPTURED.iterdir():
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    for name, text in (("scontrol", SCONTROL), ("sinfo", "#!/bin/sh\ncat {folder}/nodes.txt\n")):
        command = folder / name
        command.write_text(text.format(folder=folder))
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_the_file_has_the_partitions_that_take_jobs(invoke: Invoke, site: Path, state: Path) -> None:
    path = state / "new.yaml"
    result = invoke("init", "slurm", "-o", str(path), "--name", "mine")
    assert result.exit_code == 0, result.stderr
    assert f"heliostat check {path}" in result.stdout
    text = path.read_text()
    assert "  main:\n" in text
    for name, why in (
        ("debug", "for trials: jobs end after 10 minutes"),
        ("gpu-a100", "partition gpu is for chem, physics, and this site knows no accounts"),
        ("closed", "closed is drained: it takes no new jobs"),
    ):
        assert f"# Left out, {why}:\n  # {name}:\n" in text


def test_it_is_kept_from_overwriting(invoke: Invoke, site: Path, state: Path) -> None:
    path = state / "new.yaml"
    path.write_text("mine")
    result = invoke("init", "slurm", "-o", str(path))
    assert result.exit_code == 1
    assert "--force replaces it" in result.stderr
    assert path.read_text() == "mine"


def test_a_machine_without_slurm_says_so(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    monkeypatch.setenv("PATH", str(state))
    result = invoke("init", "slurm", "-o", "-")
    assert result.exit_code == 1
    assert "was not found: is this a machine with Slurm" in result.stderr


def test_a_site_without_partitions_says_so(invoke: Invoke, site: Path) -> None:
    (site / "partitions.txt").write_text("No partitions in the system\n")
    result = invoke("init", "slurm", "-o", "-")
    assert result.exit_code == 1
    assert "no partition would take a job now: there is none" in result.stderr


def test_a_host_that_is_an_option_is_refused(invoke: Invoke, site: Path) -> None:
    result = invoke("init", "slurm", "-o", "-", "--ssh=-oProxyCommand=true")
    assert result.exit_code != 0
    assert "ssh" in result.stderr
    assert "a host such as" in result.stderr
