"""Caller × right × function, as a table: what no entry allows is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.permission import permitted, rights_of
from heliostat.model.gateway import Allowance, CallLimits, Right
from tests.unit.gateway.people import NOW_S, WORKSPACE, allowance, caller

CALL, RUN, ADMIN = Right.CALL, Right.RUN, Right.ADMIN
ALL = (CALL, RUN, ADMIN)


def code_of(allow: list[Allowance], who: Any, right: Right, function: str | None = None) -> Code | None:
    try:
        permitted(allow, who, right, function=function, now_s=NOW_S)
    except CallError as error:
        return error.code
    return None


@pytest.mark.parametrize("given", ALL)
@pytest.mark.parametrize("asked", ALL)
def test_no_right_contains_another(given: Right, asked: Right) -> None:
    expected = None if given is asked else Code.NOT_ALLOWED
    assert code_of([allowance(given)], caller(), asked) is expected


@pytest.mark.parametrize("right", ALL)
def test_nobody_is_in_by_default(right: Right) -> None:
    assert code_of([], caller(), right) is Code.NOT_ALLOWED
    assert code_of([Allowance(rights=frozenset(ALL))], caller(None), right) is Code.NOT_ALLOWED


PEOPLE = allowance(RUN)
ROLES = Allowance(roles=frozenset({"staff"}), rights=frozenset({RUN}))
OURS = Allowance(workspaces=frozenset({WORKSPACE}), rights=frozenset({RUN}))
THEIRS = Allowance(workspaces=frozenset({"theirs"}), rights=frozenset({RUN}))
STAFF = frozenset({"staff"})
TOKENS = allowance(RUN, tokens=True)
IN_THEIRS = caller(None, workspace="theirs", workspace_permission="a", parent="p")

TABLE = [
    ("by e-mail", PEOPLE, caller(), None),
    ("another", PEOPLE, caller("eve@example.org"), Code.NOT_ALLOWED),
    ("by role", ROLES, caller("eve@example.org", roles=STAFF), None),
    ("anonymous with the address", PEOPLE, caller(is_anonymous=True), Code.NOT_ALLOWED),
    ("expired", PEOPLE, caller(expires_at_s=NOW_S), Code.SIGN_IN),
    ("never expires", PEOPLE, caller(expires_at_s=None), None),
    ("reads our workspace", PEOPLE, caller(permission="r"), Code.SIGN_IN),
    ("writes our workspace", PEOPLE, caller(permission="rw"), None),
    ("owns our workspace", PEOPLE, caller(permission="a"), None),
    ("some other word", PEOPLE, caller(permission="admin"), Code.SIGN_IN),
    ("a child that reads", PEOPLE, caller(parent="u-ada", permission="r"), Code.SIGN_IN),
    ("a child of elsewhere", PEOPLE, caller(parent="u-ada"), Code.SIGN_IN),
    ("a child that writes", PEOPLE, caller(parent="u-ada", permission="rw"), Code.SIGN_IN),
    ("a child that owns", PEOPLE, caller(parent="u-ada", permission="a"), Code.SIGN_IN),
    ("a child that writes, welcome", TOKENS, caller(parent="u-ada", permission="rw"), None),
    ("a child that reads, welcome", TOKENS, caller(parent="u-ada", permission="r"), Code.SIGN_IN),
    ("a child with a role", ROLES, caller(parent="u-ada", roles=STAFF, permission="r"), Code.SIGN_IN),
    ("from our workspace", OURS, caller(None, workspace=WORKSPACE, workspace_permission="rw"), None),
    ("looks into it", OURS, caller(None, workspace=WORKSPACE, workspace_permission="r"), Code.SIGN_IN),
    (
        "only seems to be there",
        OURS,
        caller(None, workspace=WORKSPACE, workspace_permission=None),
        Code.SIGN_IN,
    ),
    ("from theirs", THEIRS, caller(None, workspace="theirs", workspace_permission="a"), None),
    ("a child from theirs", THEIRS, IN_THEIRS, Code.SIGN_IN),
    ("a child from theirs, welcome", replace(THEIRS, tokens=True), IN_THEIRS, None),
    ("from elsewhere", THEIRS, caller(None), Code.NOT_ALLOWED),
]


@pytest.mark.parametrize(
    ("one", "who", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_who_is_let_in(one: Allowance, who: Any, expected: Code | None) -> None:
    assert code_of([one], who, RUN) is expected
    if expected is None:
        assert rights_of([one], who, now_s=NOW_S) == {RUN}
    else:
        with pytest.raises(CallError) as caught:
            rights_of([one], who, now_s=NOW_S)
        assert caught.value.code is expected


@pytest.mark.parametrize("tokens", [False, True])
def test_a_token_that_was_made_from_another_calls_functions_and_no_more_unless_it_is_said(
    tokens: bool,
) -> None:
    allow = [allowance(*ALL, tokens=tokens)]
    child = caller(parent="u-ada", permission="a")
    refused = None if tokens else Code.SIGN_IN
    assert [code_of(allow, child, right) for right in ALL] == [None, refused, refused]
    assert rights_of(allow, child, now_s=NOW_S) == (set(ALL) if tokens else {CALL})


def test_functions_by_name() -> None:
    some = allowance(CALL, functions=frozenset({"count"}))
    assert code_of([some], caller(), CALL, "count") is None
    assert code_of([some], caller(), CALL, "delete") is Code.NOT_ALLOWED
    assert code_of([allowance(CALL)], caller(), CALL, "delete") is None


def test_the_first_entry_that_gives_it_holds() -> None:
    tight, wide = CallLimits(calls_at_a_time=1), CallLimits(calls_at_a_time=9)
    allow = [
        allowance(RUN, limits=CallLimits(calls_at_a_time=5)),
        allowance(CALL, functions=frozenset({"count"}), limits=tight),
        allowance(CALL, limits=wide),
    ]
    assert permitted(allow, caller(), CALL, function="count", now_s=NOW_S) == tight
    assert permitted(allow, caller(), CALL, function="other", now_s=NOW_S) == wide


def test_a_refusal_says_who_may_not_do_what() -> None:
    with pytest.raises(CallError) as caught:
        permitted([], caller(), CALL, function="count", now_s=NOW_S)
    assert caught.value.message == "ada@example.org may not call count here; ask the owner of the cluster"
