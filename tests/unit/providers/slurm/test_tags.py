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
    stagger_s,
    tag_of,
)

UID = "0123456789abcdef0123456789abcdef"
TAG = Tag("demo", UID, "ada", "l7kq2m", "cpu-8", "4f2a", 10, first=20)


def test_name_and_comment_as_slurm_shows_them() -> None:
    assert job_name(TAG) == f"heliostat:1:{UID}:::l7kq2m:cpu-8:4f2a:10:20:array"
    assert comment(TAG) == f"heliostat:1:{UID}:demo:ada:l7kq2m:cpu-8:4f2a:10:20:array"
    assert comment(replace(TAG, together=True, first=0)).endswith(":10:0:gang")


def test_the_users_own_comment_follows_the_tag() -> None:
    text = comment(TAG, "for the, 'paper' | 100 %")
    assert text == comment(TAG) + " for the, 'paper' | 100 %"
    assert parse_comment(text) == TAG


def test_a_stagger_spreads_any_first_few_evenly() -> None:
    found = sorted(stagger_s(index, 3600) for index in range(8))
    assert found == [pytest.approx(180 * place / 8) for place in range(8)]
    assert stagger_s(0, 3600) == 0
    assert max(stagger_s(index, 864000) for index in range(300)) <= 900


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


NAMELESS = replace(TAG, cluster_name="", owner="")


@pytest.mark.parametrize("changed", ["", "(null)", "project 7", f"p7;{comment(TAG)}", f"{comment(TAG)};p7"])
def test_where_the_site_changes_the_comment_the_name_tells(changed: str) -> None:
    assert tag_of(changed, job_name(TAG)) == NAMELESS
    assert tag_of(changed, job_name(TAG), cluster_uid=UID) == NAMELESS
    assert tag_of(changed, job_name(TAG), cluster_uid="another") is None


def test_where_the_site_changes_the_name_the_comment_tells() -> None:
    assert tag_of(comment(TAG), "job", cluster_uid=UID) == TAG
    assert tag_of(comment(TAG), job_name(TAG)[:40], cluster_uid=UID) == TAG


@pytest.mark.parametrize(
    "name",
    ["heliostat", f"heliostat:1:{UID}", f"heliostat:1:{UID}:x", job_name(TAG)[:-2], "x" + job_name(TAG)],
)
def test_a_name_that_only_begins_like_ours_is_not_ours(name: str) -> None:
    assert tag_of("(null)", name, cluster_uid=UID) is None
    assert tag_of("(null)", name) is None


def test_a_comment_of_ours_that_can_not_be_read_is_an_error_unless_the_name_can() -> None:
    broken = f"heliostat:1:{UID}"
    with pytest.raises(ValueError, match="has 3 fields"):
        tag_of(broken, "job", cluster_uid=UID)
    assert tag_of(broken, "job", cluster_uid="another") is None


def test_a_name_longer_than_accounting_keeps_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="shorten the node type's name"):
        job_name(replace(TAG, node_type="x" * 255))


def test_what_slurm_would_refuse_is_refused_before() -> None:
    with pytest.raises(InvalidRequest, match=r"has 1025 bytes .* Slurm allows 1024"):
        comment(TAG, "x" * (COMMENT_MOST_CHARS - len(comment(TAG))))
    assert len(comment(TAG, "x" * (COMMENT_MOST_CHARS - len(comment(TAG)) - 1))) == COMMENT_MOST_CHARS
    with pytest.raises(InvalidRequest, match="allowed: one line without control characters"):
        comment(TAG, "two\nlines")
