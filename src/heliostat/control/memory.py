"""What the loop holds between rounds: the journal's content in memory, and what need not survive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from heliostat.control.unanswered import unanswered
from heliostat.model.history import History
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    DrainReason,
    Instance,
    InstanceIntent,
    Intent,
)
from heliostat.model.plan import Launch, Plan, Why
from heliostat.model.rejection import Answer, Rejection
from heliostat.model.snapshot import OperatorSettings, Snapshot, join
from heliostat.ports.journal import Journal


@dataclass
class Refusal:
    """Ray's answer to a drain: when (monotonic seconds), its words if it refused, what was asked and why."""

    at_s: float
    text: str
    reason: DrainReason = DrainReason.IDLE
    why: Why = Why.IDLE


@dataclass(frozen=True)
class Adding:
    """An `add` under way: `count` more, so that `total` of a type are there. No journal holds it: it ends
    with its asker. `before` is what had been added by hand until then."""

    node_type: str
    count: int
    total: int
    before: frozenset[str]


@dataclass
class Asking:
    """What Ray's autoscaler asks for just now, where that decides; one round answers it.

    `ids` are what is launched for it, None until the round was; `why` says what holds back the rest.
    """

    node_type: str
    count: int
    ids: tuple[str, ...] | None = None
    why: str = ""

    def wanted(self) -> dict[str, int]:
        return {self.node_type: self.count} if self.ids is None else {}

    def hear(self, launched: Iterable[str], plan: Plan) -> None:
        """Take the answer of the round that planned it."""
        self.ids = tuple(launched)
        self.why = "; ".join(dict.fromkeys(one.text for one in plan.deferred))


@dataclass
class Memory:
    """Mutable, owned by the one loop task; `intents`, `history`, `operator` mirror the journal.

    refused    instance id -> why the provider did not accept its launch
    answers    backend -> what came of launches since the last round
    drains     instance id -> Ray's last answer to a drain
    asked      instance id, or `letting_go(type)` -> when (monotonic) the provider was last asked for it
    changed    backend -> when (monotonic) its last change was answered
    unclear    instance id -> when a launch of it was last left without a clear answer (controller's clock)
    unanswered launch id -> a launch of an earlier controller that is wanted, and was perhaps never asked for
    adding     what is being added by hand just now
    asking     what Ray's autoscaler asks for just now
    denied     node type -> when (controller's clock) an ask of it was last refused, and the words for that
    """

    intents: dict[str, InstanceIntent]
    history: History
    operator: OperatorSettings
    refused: dict[str, Rejection] = field(default_factory=dict)
    answers: dict[str, tuple[Answer, ...]] = field(default_factory=dict)
    drains: dict[str, Refusal] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    unclear: dict[str, float] = field(default_factory=dict)
    unanswered: dict[str, Launch] = field(default_factory=dict)
    adding: Adding | None = None
    asking: Asking | None = None
    denied: dict[str, tuple[float, str]] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    instances: tuple[Instance, ...] = ()
    plan: Plan = field(default_factory=Plan)

    @classmethod
    def of(cls, journal: Journal, *, now_s: float) -> Memory:
        """Return what a journal holds, for a controller that begins.

        What was never listed may be on its way still, since an earlier controller's call had perhaps no end.
        """
        intents = {one.instance_id: one for one in journal.intents()}
        history, launches = journal.history(), unanswered(journal)
        # What is asked for again is not lost for having been absent before.
        open_ids = {
            key for key, one in intents.items() if one.intent is Intent.WANTED and one.launch_id in launches
        }
        absent = {key: at_s for key, at_s in history.absent_since.items() if key not in open_ids}
        return cls(
            intents,
            replace(history, absent_since=absent),
            journal.operator(),
            unclear={key: now_s for key in intents if key not in history.first_listed},
            unanswered=launches,
            # Whoever asks ahead of the first round finds what there is.
            instances=join(Snapshot(now_s, None, {}, tuple(intents.values()))),
        )

    def settings(self) -> OperatorSettings:
        """Return what people asked for, with the floor that an `add` under way is."""
        if self.adding is None:
            return self.operator
        floors = {**self.operator.floors, self.adding.node_type: self.adding.total}
        return replace(self.operator, floors=floors)

    def asked_by_ray(self) -> dict[str, int]:
        return self.asking.wanted() if self.asking is not None else {}

    def answer_ray(self, asked: Mapping[str, int], intents: Iterable[InstanceIntent]) -> None:
        """Tell who asked, `asked` being what this round planned for; `intents` are not known yet."""
        if self.asking is not None and asked:
            new = (one for one in intents if one.node_type in asked and one.intent is Intent.WANTED)
            ids = [one.instance_id for one in new if one.instance_id not in self.intents]
            self.asking.hear(ids, self.plan)

    def with_added(self, intents: Iterable[InstanceIntent]) -> OperatorSettings | None:
        """Return what people asked for once these are launched; None where nothing of it is added by hand.

        What came by hand stays until it is removed.
        """
        if self.adding is None:
            return None
        name, old, known = self.adding.node_type, self.operator, self.intents.keys()
        new = [one.instance_id for one in intents if one.node_type == name and one.instance_id not in known]
        # Waiting work may bring more of the type in the same round, behind what the floor brings.
        left = self.adding.count - len(old.added - self.adding.before)
        ids = frozenset(new[: max(0, left)])
        return replace(old, protected=old.protected | ids, added=old.added | ids) if ids else None

    def wanted(self) -> list[InstanceIntent]:
        return [one for one in self.intents.values() if one.intent is Intent.WANTED]

    def learn(self, intents: tuple[InstanceIntent, ...], operator: OperatorSettings | None = None) -> None:
        """Take in what has just been written."""
        self.operator = operator or self.operator
        self.intents.update({one.instance_id: one for one in intents})
        for one in intents:
            self.unanswered.pop(one.launch_id, None)

    def hear(
        self,
        backend: str,
        answer: Answer | None,
        refused: Mapping[str, Rejection],
        *,
        unclear: Mapping[str, float] | None = None,
    ) -> None:
        """Take in what came of a call; the next round's history knows of it."""
        self.refused.update(refused)
        self.unclear.update(unclear or {})
        if answer is not None:
            self.answers[backend] = (*self.answers.get(backend, ()), answer)

    def forget(self, instance_ids: list[str]) -> None:
        """Drop all that is kept of instances that are gone for good."""
        for instance_id in instance_ids:
            for kept in (self.intents, self.refused, self.drains, self.asked, self.unclear):
                kept.pop(instance_id, None)

    def refused_rows(self, backend: str) -> list[BackendInstance]:
        """Return rows that make a refused launch visible as FAILED, with the provider's words."""
        return [
            BackendInstance(
                instance_id=one.instance_id,
                native_id=one.instance_id,
                node_type=one.node_type,
                state=BackendState.FAILED,
                detail=self.refused[one.instance_id].text,
                rejection=self.refused[one.instance_id],
            )
            for one in self.wanted()
            if one.backend == backend and one.instance_id in self.refused
        ]
