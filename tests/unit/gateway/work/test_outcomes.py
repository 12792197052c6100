"""How work ended, as its caller gets it: every end has a code and words without anything of the owner's."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.outcomes import ENDS, done, size_text
from heliostat.gateway.work.parcel import pack
from heliostat.gateway.work.port import Needs

NEEDS = Needs(gpus=2.0, timeout_s=90.0)


def failed(outcome: dict[str, Any], memory_bytes: int | None = 2**30) -> CallError:
    with pytest.raises(CallError) as error:
        done(outcome, NEEDS, memory_bytes)
    return error.value


def ended(told: Any, **more: Any) -> dict[str, Any]:
    return {"end": "ended", "result": told if isinstance(told, bytes) else pack(told), "ran_s": 3.0, **more}


def test_a_value_comes_with_its_cost() -> None:
    found = done(ended({"ok": True, "value": [1, b"x"]}, node_id="n1"), NEEDS)
    assert (found.value, found.ran_s, found.gpu_s, found.node_id) == ([1, b"x"], 3.0, 6.0, "n1")


def test_a_function_returns_its_parcel() -> None:
    assert done({"end": "returned", "result": pack("hi"), "ran_s": 1.0}, NEEDS).value == "hi"


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        ({"ok": False, "kind": "raised", "message": "ValueError: no"}, Code.FAILED, "ValueError: no"),
        ({"ok": False, "kind": "memory", "message": ""}, Code.OUT_OF_MEMORY, "more than its 1 GiB of memory"),
        ({"ok": False, "kind": "large", "message": "too long"}, Code.TOO_LARGE, "too long"),
        ({"ok": False, "kind": "unsendable", "message": "a set"}, Code.FAILED, "a set"),
    ],
)
def test_what_the_scripts_host_tells(told: Any, code: Code, words: str) -> None:
    error = failed(ended(told))
    assert (error.code, error.ran_s, error.gpu_s) == (code, 3.0, 6.0)
    assert words in error.message


@pytest.mark.parametrize(
    "told", [b"", b"junk", {"ok": "yes"}, {"ok": False, "kind": "odd", "message": ""}, 7]
)
def test_what_a_stranger_may_write_instead(told: Any) -> None:
    assert failed(ended(told, code=0)).code is Code.FAILED


@pytest.mark.parametrize(
    ("code", "words"), [(-9, "SIGKILL"), (139, "SIGSEGV"), (3, "exit code 3"), (0, "exit code 0 and without")]
)
def test_a_process_that_left_nothing(code: int, words: str) -> None:
    assert words in failed(ended(b"", code=code)).message


def test_a_sandbox_that_cannot_start_is_the_owners_to_mend() -> None:
    error = failed(ended(b"", code=1, why="bwrap: Creating new namespace failed: /home/ada"))
    assert error.code is Code.INTERNAL
    assert "ada" not in error.message


@pytest.mark.parametrize("end", sorted(ENDS))
def test_every_end_has_words(end: str) -> None:
    error = failed({"end": end, "why": "x", "ran_s": 1.5})
    assert error.code is ENDS[end][0]
    assert "{" not in error.message
    assert error.gpu_s == 3.0


def test_an_unknown_end_is_a_defect() -> None:
    assert failed({"end": "odd"}).code is Code.INTERNAL


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "share"), (512 * 2**20, "512 MiB"), (3 * 2**29, "1.5 GiB"), (4 * 2**30, "4 GiB")],
)
def test_sizes_in_words(size: int | None, text: str) -> None:
    assert size_text(size) == text
