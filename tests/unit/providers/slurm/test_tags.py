"""Our tag in a job's name and comment: one safe token, and nothing else is ever taken for ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.tags import (
    COMMENT_MOST_CHARS,
    Tag,
    cluster_of,
    comment,
    job_name,
    parse_comment,
)

UID = "0123456789abcdef0123456789abcdef"
TAG = Tag("demo", UID, "ada", "l7kq2m", "cpu-8", "4f2a", 10, first=20)


def test_name_and_comment_as_slurm_shows_them() -> None:
    assert job_name(UID, "l7kq2m") == "hel-01234567-l7kq2m"
    assert comment(TAG) == f"heliostat:1:{UID}:demo:ada:l7kq2m:cpu-8:4f2a:10:20:array"
    assert comment(replace(TAG, together=True, first=0)).endswith(":10:0:gang")


def test_the_users_own_comment_follows_the_tag() -> None:
    text = comment(TAG, "for the, 'paper' | 100 %")
    assert text == comment(TAG) + " for the, 'paper' | 100 %"
    assert parse_comment(text) == TAG


def test_a_members_id_counts_from_the_jobs_first() -> None:
    assert [TAG.instance_id(member) for member in (0, 9)] == ["l7kq2m.20", "l7kq2m.29"]


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(WORDS, WORDS, WORDS, st.integers(1, 10**6), st.integers(0, 10**6), st.booleans())
def test_whatever_people_call_their_things_comes_back(
    cluster: str, owner: str, node_type: str, count: int, first: int, together: bool
) -> None:
    tag = Tag(cluster, UID, owner, "l1", node_type, "s", count, first, together)
    text = comment(tag)
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(" '\"`,;|$\\")
    assert parse_comment(text) == tag
    assert cluster_of(text) == UID


@pytest.mark.parametrize(
    "text", ["", "(null)", "my run", "heliostat", "heliostat: my run", "xheliostat:1:a:b"]
)
def test_comments_of_others_are_not_ours(text: str) -> None:
    assert parse_comment(text) is None
    assert cluster_of(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"heliostat:1:{UID}", "has 3 fields"),
        (f"heliostat:1:{UID}:demo:ada:l1:cpu:s:4:0", "has 10 fields"),
        (f"heliostat:1:{UID}:demo:ada:l1:cpu:s:four:0:array", "can't be read"),
        (f"heliostat:1:{UID}:demo:ada:l1:cpu:s:0:0:array", "can't be read"),
        (f"heliostat:1:{UID}:demo:ada:l1:cpu:s:4:-1:array", "can't be read"),
        (f"heliostat:1:{UID}:demo:ada:l1:cpu:s:4:0:heap", "can't be read"),
        (f"heliostat:1:{UID}:demo:ada::cpu:s:4:0:array", "can't be read"),
        (f"heliostat:2:{UID}:whatever", "of version 2; known is 1"),
    ],
)
def test_a_broken_comment_of_ours_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_comment(text)
    assert cluster_of(text) == UID


def test_what_slurm_would_refuse_is_refused_before() -> None:
    with pytest.raises(InvalidRequest, match=r"has 1025 bytes .* Slurm allows 1024"):
        comment(TAG, "x" * (COMMENT_MOST_CHARS - len(comment(TAG))))
    assert len(comment(TAG, "x" * (COMMENT_MOST_CHARS - len(comment(TAG)) - 1))) == COMMENT_MOST_CHARS
    with pytest.raises(InvalidRequest, match="allowed: one line without control characters"):
        comment(TAG, "two\nlines")
