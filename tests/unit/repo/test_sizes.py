"""Files, functions and names in src/ stay within the house rules (CONTRIBUTING.md)."""

from __future__ import annotations

import ast

import pytest

from tests.unit.repo import tree

FILE_LINES = 500
# It is carried into any image as one file, so it can't be split; it has a limit of its own.
LONGER = {"src/heliostat/node/bootstrap.py": 1000}
FUNCTION_LINES = 70
VAGUE = {"manager", "helper", "helpers", "util", "utils", "common", "misc"}


def long_functions(module: ast.Module) -> list[str]:
    functions = (
        node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = ((node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions)
    return [f"{name}: {lines} lines" for name, lines in lengths if lines > FUNCTION_LINES]


def test_no_file_is_too_long() -> None:
    lengths = {
        tree.name_of(path): path.read_text().count("\n") for path in tree.files(tree.SOURCE, suffix=".py")
    }
    assert {name: n for name, n in lengths.items() if n > LONGER.get(name, FILE_LINES)} == {}


def test_no_function_is_too_long() -> None:
    assert {name: found for name, module in tree.modules() if (found := long_functions(module))} == {}


@pytest.mark.parametrize(("lines", "too_long"), [(FUNCTION_LINES, False), (FUNCTION_LINES + 1, True)])
def test_a_long_function_is_seen(lines: int, too_long: bool) -> None:
    text = "async def long():\n" + "    pass\n" * (lines - 1)
    assert bool(long_functions(ast.parse(text))) is too_long


def test_modules_and_classes_have_names_that_say_something() -> None:
    vague = []
    for name, module in tree.modules():
        words = name.removesuffix(".py").replace("/", "_").lower().split("_")
        vague += [name] if VAGUE & set(words) else []
        classes = (node.name for node in ast.walk(module) if isinstance(node, ast.ClassDef))
        vague += [f"{name}: {one}" for one in classes if one.lower().endswith(tuple(VAGUE))]
    assert vague == []


def test_every_module_says_what_lives_in_it() -> None:
    assert [name for name, module in tree.modules() if not ast.get_docstring(module)] == []
