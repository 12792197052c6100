from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from heliostat.config.errors import Position
from heliostat.config.positions import Document, parse

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


def _good(text: str) -> Document:
    document, problems = parse(text, "f")
    assert document is not None
    assert problems == []
    return document


def _bad(text: str) -> list[str]:
    return [str(problem) for problem in parse(text, "f")[1]]


ANCHORS = """\
base: &base {a: 1, b: [x, y]}
more:
  <<: *base
  b: own
twice: *base
several:
  <<: [*base, {c: 3}]
again: [*base, *base]
"""


def test_anchors_and_merge_keys_mean_what_they_mean_to_ray() -> None:
    assert _good(ANCHORS).data == yaml.safe_load(ANCHORS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_read_as_ray_reads_them(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _good(text).data == yaml.safe_load(text)


def test_every_key_has_its_line() -> None:
    document = _good("a: 1\nb:\n  c:\n    - x\n    - y: 2\n")
    lines = {path: position.line for path, position in document.positions.items()}
    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "y"): 5,
    }
    assert document.at(("b", "c", "nothing", "here")) == Position("f", 3)


def test_doubles_are_refused_wherever_they_are() -> None:
    assert _bad("a: {x: 1, x: 2}\nb: 1\nb: 1\n") == [
        "f:3: b: the key is there twice, first on line 2; keep one of them",
        "f:1: a.x: the key is there twice, first on line 1; keep one of them",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x [*x]\n", "an alias to a value that contains it"),
        ("a: 2024-01-01\n", "f:1: a: 2024-01-01 is neither text, a finite number nor true/false"),
        ("a: 2024-13-45\n", "f:1: a: 2024-13-45 is neither text"),
        ("a: .nan\n", "a: .nan is neither text, a finite number"),
        ("a: !!set {b: }\n", "a: a value with the tag tag:yaml.org,2002:set"),
        ("a:\n  ? [1, 2]\n  : x\n", "f:2: a: a list or mapping as a key; keys are text"),
        ("a:\n  yes: 1\n", "f:2: a: yes as a key; keys are text, so put it in quotes"),
        ("a: {<<: 5}\n", "not valid YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deep"),
    ],
)
def test_what_no_cluster_file_can_mean(text: str, expected: str) -> None:
    assert any(expected in line for line in _bad(text)), _bad(text)


def test_a_few_aliases_cannot_become_billions() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 50000 values, aliases included" in _bad("\n".join(rows))[0]
