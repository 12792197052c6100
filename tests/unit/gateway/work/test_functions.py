"""What an owner's module publishes, and what callers may give its functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.functions import MODULE_PREFIX, Published, load
from heliostat.gateway.work.port import Needs
from heliostat.ports.errors import ConfigError

MODULE = '''
from __future__ import annotations
import numpy as np
import numpy.typing as npt
from typing import Literal

__all__ = ["segment", "add"]
NEEDS = {"segment": {"gpus": 1, "timeout_s": 900}}

def segment(
    image: np.ndarray,
    diameter: float = 30.0,
    *,
    mode: Literal["fast", "fine"] = "fast",
    masks: list[npt.NDArray[np.float32]] | None = None,
) -> np.ndarray:
    """Return a mask for each cell."""
    return image > diameter

def add(a: int, b: int):
    return a + b

def hidden(a: int) -> int:
    return a
'''


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Any]:
    def to(text: str) -> str:
        path = tmp_path / "published.py"
        path.write_text(text)
        return str(path)

    yield to
    sys.modules.pop(f"{MODULE_PREFIX}published", None)


@pytest.fixture
def segment(write: Any) -> Published:
    return load(write(MODULE))[1]["segment"]


def test_what_is_published_is_what_all_names(write: Any) -> None:
    module, found = load(write(MODULE))
    assert list(found) == ["segment", "add"]
    assert sys.modules[module.__name__] is module


def test_a_signature_says_all_that_a_caller_needs(segment: Published) -> None:
    signature = segment.signature
    assert signature.doc == "Return a mask for each cell."
    assert signature.returns == "numpy.ndarray"
    assert signature.needs == Needs(gpus=1.0, timeout_s=900.0)
    assert signature.parameters["required"] == ["image"]
    assert signature.parameters["properties"]["diameter"] == {
        "title": "Diameter",
        "type": "number",
        "default": 30.0,
    }
    assert signature.parameters["properties"]["mode"]["enum"] == ["fast", "fine"]
    assert "numpy" in signature.parameters["properties"]["image"]["description"]


def test_without_words_a_signature_is_plain(write: Any) -> None:
    signature = load(write(MODULE))[1]["add"].signature
    assert (signature.doc, signature.returns, signature.needs) == ("", "Any", Needs())


def test_arguments_come_as_their_types(segment: Published) -> None:
    found = segment.checked({"image": [[1, 2], [3, 4]], "diameter": 7, "masks": [np.zeros(2)]})
    np.testing.assert_array_equal(found["image"], [[1, 2], [3, 4]])
    assert found["diameter"] == 7.0
    assert found.keys() == {"image", "diameter", "masks"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "image: field required"),
        ({"image": "text"}, "image: input should be an instance of numpy.ndarray"),
        ({"image": [1], "diameter": "wide"}, "diameter: input should be a valid number"),
        ({"image": [1], "mode": "slow"}, "mode: input should be 'fast' or 'fine'"),
        ({"image": [1], "masks": [3]}, "masks.0: input should be an instance of numpy.ndarray"),
        ({"image": [1], "size": 3}, "size: extra inputs are not permitted"),
    ],
)
def test_wrong_arguments_are_named(segment: Published, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(CallError) as error:
        segment.checked(arguments)
    assert error.value.code is Code.INVALID
    assert words in error.value.message


def test_of_many_problems_some_are_told(segment: Published) -> None:
    with pytest.raises(CallError, match="and 4 more"):
        segment.checked({f"x{number}": 1 for number in range(8)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "can't be imported: ZeroDivisionError"),
        ("def f(a: int) -> int: ...", "`__all__` has to list"),
        ("__all__ = ['f']", "f: only plain functions"),
        ("__all__ = ['f']\nasync def f(a: int): ...", "f: only plain functions"),
        ("__all__ = ['f']\ndef f(a: int): yield a", "f: only plain functions"),
        ("__all__ = ['f']\ndef f(a): ...", "f: the parameter a has no type"),
        ("__all__ = ['f']\ndef f(*a: int): ...", "*a: int can't be given by name"),
        ("__all__ = ['f']\ndef f(a: int, /): ...", "can't be given by name"),
        ("__all__ = ['f']\nclass C: ...\ndef f(a: C): ...", "f: Unable to generate pydantic-core schema"),
        ("__all__ = ['f']\ndef f(a: 'Nobody'): ...", "f: name 'Nobody' is not defined"),
        ("__all__ = ['f']\nNEEDS = {'g': {}}\ndef f(): ...", "NEEDS names g"),
        ("__all__ = ['f']\nNEEDS = {'f': {'gpu': 1}}\ndef f(): ...", "not gpu"),
        ("__all__ = ['f']\nNEEDS = {'f': {'cpus': 0}}\ndef f(): ...", "some of cpus or gpus"),
        ("__all__ = ['f']\nNEEDS = {'f': {'cpus': 'all'}}\ndef f(): ...", "valid number"),
    ],
)
def test_a_module_that_is_wrong_is_refused(write: Any, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(text))
    assert words in str(error.value)


def test_a_missing_module_is_told() -> None:
    with pytest.raises(ConfigError, match="ModuleNotFoundError"):
        load("nobody_has_this_module")
