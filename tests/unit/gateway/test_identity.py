"""Who calls, by what the server has verified: every gap makes a caller smaller."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.identity import caller_of
from tests.unit.gateway.people import ADA, NOW_S, WORKSPACE, caller, context


def scope(**workspaces: Any) -> dict[str, Any]:
    return {"workspaces": workspaces}


def test_somebody_who_has_signed_in() -> None:
    assert caller_of(context(), WORKSPACE) == caller()


def test_a_token_that_was_made_from_another() -> None:
    found = caller_of(context(id="child", parent="u-ada", ws=WORKSPACE, scope=scope(lab="r")), WORKSPACE)
    assert (found.id, found.parent, found.email) == ("child", "u-ada", ADA)
    assert (found.permission, found.workspace_permission, found.workspace) == ("r", "r", WORKSPACE)


@pytest.mark.parametrize(
    ("workspaces", "expected"),
    [
        ({}, None),
        ({"lab": "r"}, "r"),
        ({"lab": "rw"}, "rw"),
        ({"lab": "a"}, "a"),
        ({"*": "a", "lab": "r"}, "a"),
        ({"*": "r", "lab": "a"}, "a"),
        ({"lab2": "a"}, None),
        ({"lab": "admin"}, "admin"),
        ({"lab": 3}, None),
        (["lab"], None),
    ],
)
def test_the_permission_for_our_workspace(workspaces: Any, expected: str | None) -> None:
    assert caller_of(context(scope={"workspaces": workspaces}), WORKSPACE).permission == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, None), (NOW_S, NOW_S), (5, 5.0), ("soon", 0.0), (float("nan"), 0.0), (True, 0.0)],
)
def test_when_it_ends(said: Any, expected: float | None) -> None:
    assert caller_of(context(expires_at=said), WORKSPACE).expires_at_s == expected


@pytest.mark.parametrize(
    "user", [{"is_anonymous": True}, {"is_anonymous": None}, {"is_anonymous": 0}, {"roles": ["anonymous"]}]
)
def test_anonymous_unless_the_server_says_otherwise(user: dict[str, Any]) -> None:
    assert caller_of(context(**user), WORKSPACE).is_anonymous


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"ws": "w"},
        {"user": {"id": "a"}},
        {"ws": "w", "user": "ada"},
        {"ws": "w", "user": {"id": ""}},
    ],
)
def test_nobody_known_is_nobody_let_in(given: Any) -> None:
    with pytest.raises(CallError, match="sign in") as caught:
        caller_of(given, WORKSPACE)
    assert caught.value.code is Code.SIGN_IN


def test_whose_account_it_is() -> None:
    assert caller().account == ADA
    assert caller(None, parent="u-ada", id="child").account == "u-ada"
    assert caller(None).account == "u-ada"
