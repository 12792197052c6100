"""`heliostat migrate`: where the new form goes, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Invoke

OLD = Path(__file__).parents[1] / "config" / "old" / "outside.yaml"
pytestmark = pytest.mark.usefixtures("state")


def test_it_goes_to_standard_output(invoke: Invoke) -> None:
    result = invoke("migrate", str(OLD))
    assert result.exit_code == 0
    assert "backends:\n    local: {}" in result.stdout
    assert f"{OLD}:6: provider.template_path: templates are not read" in result.stderr


def test_or_to_a_file_which_is_not_replaced_unasked(invoke: Invoke, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    assert invoke("migrate", str(OLD), "-o", str(new)).exit_code == 0
    written = new.read_text()
    assert "under_slurm" not in written
    result = invoke("migrate", str(OLD), "-o", str(new))
    assert result.exit_code == 1
    assert f"{new} is there already: --force replaces it" in result.stderr
    assert invoke("migrate", str(OLD), "-o", str(new), "--force").exit_code == 0
    assert [one.name for one in tmp_path.iterdir() if "new" in one.name] == ["new.yaml"]


def test_a_file_of_the_new_form_is_said_to_be_one(invoke: Invoke) -> None:
    path = Path(__file__).parents[3] / "examples" / "minimal.yaml"
    result = invoke("migrate", str(path))
    assert result.stdout == path.read_text()
    assert "is of the new form already" in result.stderr


def test_a_wrong_one_is_bad_input_and_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    wrong = tmp_path / "old.yaml"
    wrong.write_text(OLD.read_text().replace("head_node: 0", "head_node: 5"))
    result = invoke("migrate", str(wrong), "-o", str(tmp_path / "new.yaml"))
    assert result.exit_code == 2
    assert "head_node: 5; allowed is 0 or 1" in result.stderr
    assert not (tmp_path / "new.yaml").exists()


def test_check_says_what_has_no_meaning(invoke: Invoke) -> None:
    result = invoke("check", str(OLD))
    assert f"{OLD}:6: provider.template_path: templates are not read" in result.stdout
