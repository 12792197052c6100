"""The one table that derives an instance's state, as data.

Each row: (intent, what the backend says, what Ray says) -> state. `None` stands for
«whatever it is». The first row that matches wins, so the order is the argument:
Ray's word on a living node beats the backend's, a release beats a start.
"""

from __future__ import annotations

from heliostat.model.instance import MEMBER
from heliostat.model.instance import BackendState as B
from heliostat.model.instance import InstanceState as S
from heliostat.model.instance import Intent as I
from heliostat.model.instance import NodeStatus as N

Rule = tuple[I | None, frozenset[B] | None, frozenset[N] | None, S]


def _backend(*states: B) -> frozenset[B]:
    return frozenset(states)


def _node(*states: N) -> frozenset[N]:
    return frozenset(states)


_LIVE = _node(N.RUNNING, N.IDLE)
_OVER = _backend(B.ENDED, B.FAILED)

RULES: tuple[Rule, ...] = (
    # Released: it is stopping until a listing, not a guess, says that it is over.
    (I.RELEASED, _OVER | _backend(B.ABSENT), None, S.GONE),
    (I.RELEASED, None, None, S.STOPPING),
    # The backend says it is over, and Ray that it lives: it is on its way out, or was listed wrongly.
    (I.WANTED, _OVER, MEMBER, S.STOPPING),
    # Who has joined by then only Ray can say.
    (I.WANTED, _OVER, _node(N.UNKNOWN), S.UNKNOWN),
    # It is over. A worker that Ray had seen left; one that never joined failed.
    (I.WANTED, _backend(B.FAILED), None, S.FAILED),
    (I.WANTED, _backend(B.ENDED), _node(N.NONE), S.FAILED),
    (I.WANTED, _backend(B.ENDED), None, S.GONE),
    # Ray lost the node, the backend still holds the machine: it has to be released.
    (I.WANTED, _backend(B.STOPPING), None, S.STOPPING),
    (I.WANTED, _backend(B.ABSENT), _node(N.DEAD), S.GONE),
    (I.WANTED, None, _node(N.DEAD), S.STOPPING),
    (I.WANTED, None, _node(N.DRAINING), S.DRAINING),
    # A node that Ray sees alive runs, whatever an old listing says.
    (I.WANTED, None, _LIVE, S.RUNNING),
    (I.WANTED, _backend(B.UNKNOWN), None, S.UNKNOWN),
    (I.WANTED, _backend(B.RUNNING, B.STARTING), _node(N.UNKNOWN), S.UNKNOWN),
    (I.WANTED, _backend(B.QUEUED), None, S.QUEUED),
    (I.WANTED, _backend(B.STARTING, B.RUNNING), _node(N.NONE), S.STARTING),
    # Asked for, not listed yet: a listing may lag behind the ask, so this is not «gone».
    (I.WANTED, _backend(B.ABSENT), None, S.REQUESTED),
)


def derive(intent: I, backend: B, node: N) -> S:
    """Return the state of an instance; every combination has exactly one.

    An instance that stays ABSENT after it was once listed is for `fold` to notice: the
    table sees one round only.
    """
    return _TABLE[intent, backend, node]


def _first_match(intent: I, backend: B, node: N) -> S:
    for rule_intent, rule_backend, rule_node, state in RULES:
        if (
            (rule_intent is None or rule_intent is intent)
            and (rule_backend is None or backend in rule_backend)
            and (rule_node is None or node in rule_node)
        ):
            return state
    raise AssertionError(f"no rule for {intent}, {backend}, {node}")


# Thousands of instances ask every second, so the rules are read once.
_TABLE = {(i, b, n): _first_match(i, b, n) for i in I for b in B for n in N}


TRANSITIONS: dict[S, frozenset[S]] = {
    # A requeue takes an instance back to QUEUED; a late reply can show up in any order;
    # UNKNOWN may follow and precede anything that is not over.
    S.REQUESTED: frozenset(
        {S.QUEUED, S.STARTING, S.RUNNING, S.DRAINING, S.STOPPING, S.GONE, S.FAILED, S.UNKNOWN}
    ),
    S.QUEUED: frozenset(
        {S.REQUESTED, S.STARTING, S.RUNNING, S.DRAINING, S.STOPPING, S.GONE, S.FAILED, S.UNKNOWN}
    ),
    S.STARTING: frozenset(
        {S.REQUESTED, S.QUEUED, S.RUNNING, S.DRAINING, S.STOPPING, S.GONE, S.FAILED, S.UNKNOWN}
    ),
    S.RUNNING: frozenset(
        {S.REQUESTED, S.QUEUED, S.STARTING, S.DRAINING, S.STOPPING, S.GONE, S.FAILED, S.UNKNOWN}
    ),
    S.DRAINING: frozenset({S.REQUESTED, S.QUEUED, S.STOPPING, S.GONE, S.FAILED, S.UNKNOWN}),
    # A backend that said «stopping» and then falls silent, or no longer lists it, leaves Ray's word alone.
    S.STOPPING: frozenset(
        {S.REQUESTED, S.QUEUED, S.STARTING, S.RUNNING, S.DRAINING, S.GONE, S.FAILED, S.UNKNOWN}
    ),
    S.UNKNOWN: frozenset(S),
    # Of one whose node has died nothing is known any more when Ray falls silent. Of one that ended meanwhile
    # only Ray says, when it speaks again, that it never was a node.
    S.GONE: frozenset({S.REQUESTED, S.QUEUED, S.STOPPING, S.FAILED, S.UNKNOWN}),
    # A release may be left for later (`heliostat pause`); meanwhile a backend may forget it or queue it anew.
    S.FAILED: frozenset({S.REQUESTED, S.QUEUED, S.STOPPING, S.GONE, S.UNKNOWN}),
}
