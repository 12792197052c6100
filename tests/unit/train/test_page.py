"""docs/train.md says what there is: its code compiles, and its tables are complete."""

from __future__ import annotations

import ast
import re

from heliostat import train
from heliostat.train.options import Options, Settings
from tests.unit.repo import tree

PAGE = (tree.ROOT / "docs" / "train.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def names(text: str) -> set[str]:
    """Return what stands in the first column of a table."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)[^`]*`", cell)}


def test_its_code_compiles_and_imports_what_there_is() -> None:
    assert len(BLOCKS) >= 3
    imported = [
        alias.name
        for block in BLOCKS
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "heliostat.train"
        for alias in node.names
    ]
    assert set(imported) <= set(train.__all__)


def test_every_option_is_there_with_its_default() -> None:
    text = section("Options")
    assert names(text) == {*Options.__annotations__, "args"} - {"cluster"}
    for cells, defaults in re.findall(r"^\| (`\w.*?) \| (\d[\d, ]*) \|", text, re.MULTILINE):
        wanted = [float(getattr(Settings, name)) for name in re.findall(r"`(\w+)`", cells)]
        assert [float(one) for one in defaults.split(", ")] == wanted


def test_every_metric_is_there() -> None:
    # The module that makes them needs Ray, so it is read.
    module = ast.parse((tree.SOURCE / "train" / "ray_cluster.py").read_text(encoding="utf-8"))
    made = {
        key.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant)
    }
    shown = re.findall(r"`(?:ray_heliostat_train|…)_(\w+)`", section("Metrics and logs"))
    assert made == set(shown)
