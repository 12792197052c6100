"""docs/architecture.svg shows what is there: the layers of the contract, the packages of src/."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.unit.repo import tree
from tools import architecture

PYPROJECT = """
[[tool.importlinter.contracts]]
name = "downwards"
type = "layers"
layers = ["cli | (launcher)", "(sim)", "model"]
exhaustive_ignores = ["node", "train"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name, text in {
        "cli": '"""The command."""\nimport click\nfrom heliostat import model\n',
        "model": '"""Values,\nand <only> values.\n\nMore."""\nimport enum\n',
        "node": '"""Alone."""\n',
    }.items():
        folder = tmp_path / "src" / "heliostat" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text)
    return tmp_path


def test_the_picture_in_docs_is_true() -> None:
    drawn = architecture.draw(architecture.read(tree.ROOT))
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, "run `make picture`"


def test_layers_hold_the_packages_that_exist(project: Path) -> None:
    picture = architecture.read(project)
    assert [[box.name for box in row] for row in picture.layers] == [["cli"], ["model"]]
    assert [box.name for box in picture.beside] == ["node"]
    assert picture.layers[0][0].uses == ("click",)
    assert picture.layers[1][0].purpose == "Values, and <only> values."


def test_a_new_package_changes_the_picture(project: Path) -> None:
    before = architecture.draw(architecture.read(project))
    (project / "src" / "heliostat" / "sim").mkdir()
    (project / "src" / "heliostat" / "sim" / "__init__.py").write_text('"""A virtual world."""\n')
    after = architecture.draw(architecture.read(project))
    assert "A virtual world." in after
    assert "A virtual world." not in before


def test_the_picture_is_well_formed(project: Path) -> None:
    root = ET.fromstring(architecture.draw(architecture.read(project)))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"cli", "model", "node", "imports click"} <= set(texts)
