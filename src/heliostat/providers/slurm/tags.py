"""Our tag: by it, in its comment or in its name, a Slurm job is known as ours. Pure.

    heliostat:1:<cluster uid>:<cluster name>:<owner>:<launch id>:<node type>:<shape id>:<count>:<first>:<kind>

is one token, each value percent-encoded, so that it holds no space, quote, comma, bar or
control character, whatever people call their things. In the comment a user's own may follow
after a space. The name is the same token without cluster name and owner: it counts where a site
has changed the comment (a job_submit plug-in), and accounting keeps it where it keeps no comment.
A job is ours only by the whole token with the whole uid of the cluster, never by its beginning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from heliostat.ports.errors import InvalidRequest

VERSION = 1
COMMENT_MOST_CHARS = 1024
"""slurmctld refuses a longer comment («Pathname of a file, directory or other parameter too long»)."""

NAME_MOST_CHARS = 255
"""Accounting's column for a job's name holds no more."""

ARRAY, GANG = "array", "gang"
OURS = re.compile(r"heliostat:(\d+):([^:\s]*)(?::|$)")
FIELDS = 11


@dataclass(frozen=True)
class Tag:
    """What one Slurm job of ours is: `count` instances of a launch, from index `first` on.

    `count` is that of this job: a launch too large for one array is several jobs.
    `together`: a gang, one allocation with a node for each member; else an array.
    """

    cluster_name: str
    cluster_uid: str
    owner: str
    launch_id: str
    node_type: str
    shape_id: str
    count: int
    first: int = 0
    together: bool = False

    def instance_id(self, member: int) -> str:
        """Return the id of a member: an array's task or a gang's rank, counted from 0."""
        return f"{self.launch_id}.{self.first + member}"


def job_name(tag: Tag) -> str:
    """Return the job's name. Raises InvalidRequest when it is longer than accounting keeps."""
    text = _token(replace(tag, cluster_name="", owner=""))
    if len(text) > NAME_MOST_CHARS:
        raise InvalidRequest(
            f"the job's name has {len(text)} characters, and {NAME_MOST_CHARS} at most are kept by Slurm: "
            f"shorten the node type's name, {tag.node_type}"
        )
    return text


def comment(tag: Tag, note: str = "") -> str:
    """Return the job's comment; `note` is the user's own, which follows the tag.

    Raises InvalidRequest when Slurm would not take it, or could not show it in one line.
    """
    text = f"{_token(tag)} {note}" if note else _token(tag)
    if not note.isprintable():
        raise InvalidRequest(f"comment is {note!r}; allowed: one line without control characters")
    if len(text.encode()) > COMMENT_MOST_CHARS:
        raise InvalidRequest(
            f"the job's comment has {len(text.encode())} bytes with the cluster's tag; Slurm allows "
            f"{COMMENT_MOST_CHARS}: shorten the comment, or the name of the cluster or node type"
        )
    return text


def _token(tag: Tag) -> str:
    values = (tag.cluster_uid, tag.cluster_name, tag.owner, tag.launch_id, tag.node_type, tag.shape_id)
    encoded = (quote(value, safe="") for value in values)
    kind = GANG if tag.together else ARRAY
    return ":".join(["heliostat", str(VERSION), *encoded, str(tag.count), str(tag.first), kind])


def cluster_of(text: str) -> str | None:
    """Return the cluster uid that a comment or name claims, of whatever version; None if it is not ours."""
    found = OURS.match(text)
    return unquote(found[2]) if found else None


def parse_comment(text: str) -> Tag | None:
    """Return the tag at the beginning of a comment, or name; None if there is none.

    ValueError for one that begins as ours and can't be read.
    """
    found = OURS.match(text)
    if found is None:
        return None
    if int(found[1]) != VERSION:
        raise ValueError(f"the comment {text!r} is of version {found[1]}; known is {VERSION}")
    fields = text.split(" ", 1)[0].split(":")
    if len(fields) != FIELDS:
        raise ValueError(f"the comment {text!r} has {len(fields)} fields; {FIELDS} are needed")
    uid, name, owner, launch_id, node_type, shape_id = map(unquote, fields[2:8])
    count, first, kind = fields[8:]
    whole = re.fullmatch(r"[1-9]\d*", count) and re.fullmatch(r"\d+", first) and kind in (ARRAY, GANG)
    if not (whole and uid and launch_id and node_type):
        raise ValueError(f"the comment {text!r} can't be read as one of ours")
    return Tag(name, uid, owner, launch_id, node_type, shape_id, int(count), int(first), kind == GANG)


def tag_of(comment: str, name: str, *, cluster_uid: str | None = None) -> Tag | None:
    """Return the tag of a job, of that cluster if one is given: its comment's, else its name's.

    ValueError where the comment claims to be ours, and neither can be read.
    """
    wrong: ValueError | None = None
    for text in (comment, name):
        uid = cluster_of(text)
        if uid is None or cluster_uid not in (None, uid):
            continue
        try:
            return parse_comment(text)
        except ValueError as error:
            # Names are anybody's, and a site may have cut ours: a broken one is none.
            wrong = error if text is comment else wrong
    if wrong is not None:
        raise wrong
    return None


STAGGER_PART = 0.05
STAGGER_MOST_S = 900.0


def stagger_s(index: int, lease_s: float) -> float:
    """Return how long before its lease's end an array's task leaves, so that not all leave at once.

    At most a twentieth of the lease and a quarter of an hour; the first task's is 0. Any first few
    tasks are spread evenly over that time: the van der Corput sequence in base 2.
    """
    share, weight = 0.0, 0.5
    while index:
        share += weight * (index & 1)
        index, weight = index >> 1, weight / 2
    return share * max(0.0, min(lease_s * STAGGER_PART, STAGGER_MOST_S))
