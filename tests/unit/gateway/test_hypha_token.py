"""The gateway's token: where it is found, when it ends, and who may read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.gateway.hypha import token as tokens
from heliostat.gateway.hypha.token import MARGIN_S, Token, TokenFileError
from tests.hypha_server import signed

NOW_S = 1_000_000.0


def made(begins_in_s: float = 0.0, ends_in_s: float = 3600.0, **claims: object) -> str:
    return signed("secret", {"iat": NOW_S + begins_in_s, "exp": NOW_S + ends_in_s, **claims})


def kept(folder: Path, text: str) -> Path:
    tokens.keep(folder / "own" / "token", text)
    return folder / "own" / "token"


@pytest.mark.parametrize(
    ("variable", "file", "found", "refused"),
    [
        (None, None, [], 0),
        ("now", None, ["variable"], 0),
        ("now", "now", ["variable", "file"], 0),
        ("past", "now", ["file"], 1),
        (None, "soon", [], 1),
        ("past", "past", [], 2),
        ("", "  \n", [], 0),
    ],
)
def test_the_variable_is_before_the_file_and_what_ends_soon_counts_for_nothing(
    tmp_path: Path, variable: str | None, file: str | None, found: list[str], refused: int
) -> None:
    ends = {"now": 3600.0, "past": -1.0, "soon": MARGIN_S - 1}
    environ = (
        {} if variable is None else {"T": made(ends_in_s=ends[variable]) if variable in ends else variable}
    )
    path = tmp_path / "token"
    if file is not None:
        path = kept(tmp_path, made(ends_in_s=ends[file]) if file in ends else file)
    result = tokens.find(environ, "T", path, now_s=NOW_S)
    assert [one.source.split()[1] for one in result.tokens] == found
    assert len(result.refusals) == refused


def test_a_token_that_says_nothing_of_itself_is_tried() -> None:
    for text in ("opaque", "a.b.c", "a.bm8.c"):
        token = tokens.parse(text, "a test")
        assert (token.expires_at_s, token.holds(NOW_S), token.renew_at_s()) == (None, True, None)


@pytest.mark.parametrize(
    ("life_s", "renew_before_end_s"), [(86_400.0, 43_200.0), (3600.0, 1800.0), (600.0, 2 * MARGIN_S)]
)
def test_a_token_is_renewed_at_half_its_life_and_well_before_its_end(
    life_s: float, renew_before_end_s: float
) -> None:
    token = tokens.parse(made(ends_in_s=life_s), "a test")
    assert token.renew_at_s() == NOW_S + life_s - renew_before_end_s


def test_no_representation_shows_a_token() -> None:
    token = tokens.parse(made(), "a test")
    assert token.text not in f"{token!r} {token}"
    assert "a test" in repr(token)


def test_the_file_is_this_users_alone(tmp_path: Path) -> None:
    path = kept(tmp_path, "first")
    tokens.keep(path, "second")
    assert tokens.read(path) == "second\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["token"]


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = kept(tmp_path, "x")
    path.chmod(0o640)
    with pytest.raises(TokenFileError, match="chmod 600"):
        tokens.read(path)


@pytest.mark.parametrize("action", ["read", "keep"])
def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, action: str) -> None:
    (tmp_path / "token").mkdir(mode=0o700)
    with pytest.raises(TokenFileError, match=r"the token file .* can't be \w+: \w"):
        tokens.read(tmp_path / "token") if action == "read" else tokens.keep(tmp_path / "token", "x")


def test_lifetimes() -> None:
    assert Token("x", "y", 10.0, 30.0).lifetime_s == 20.0
    assert Token("x", "y", None, 30.0).lifetime_s is None
