"""Turn a plan's actions into what the journal must hold before anyone is asked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from heliostat.model.instance import (
    BackendInstance,
    Change,
    InstanceIntent,
    Intent,
    LaunchRequest,
)
from heliostat.model.node_type import Policy
from heliostat.model.plan import Drain, Launch, Plan, Release
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.journal import Event

LAUNCH, AGAIN = "launch", "again"


@dataclass(frozen=True)
class Recorded:
    """Intents and events to write first, then the changes per backend and the drains to carry out.

    `operator` are the settings that are to be written with the intents, None where they stay as they are.
    """

    intents: tuple[InstanceIntent, ...]
    events: tuple[Event, ...]
    changes: Mapping[str, Change]
    drains: tuple[Drain, ...]
    operator: OperatorSettings | None = None

    def with_changes(self, more: Mapping[str, Change]) -> Recorded:
        """Return the same with more to ask of the backends."""
        changes = dict(self.changes)
        for backend, change in more.items():
            _add(changes, backend, change)
        return replace(self, changes=changes)

    def with_again(self, intents: Sequence[InstanceIntent], event: Event, change: Change) -> Recorded:
        """Return the same with a launch, its members' `intents`, that is asked for again."""
        more = self.with_changes({intents[0].backend: change})
        return replace(more, intents=(*self.intents, *intents), events=(*self.events, event))


@dataclass(frozen=True)
class Forms:
    """What recording needs from its surroundings: new ids, and a type's start document."""

    new_launch_id: Callable[[], str]
    request: Callable[[str, Launch], LaunchRequest]


def record(
    plan: Plan, *, now_s: float, policy: Policy, intents: Mapping[str, InstanceIntent], forms: Forms
) -> Recorded:
    """Return what to write and what to do for `plan`; ids come from `forms`.

    Every launch becomes `count` WANTED intents, every release one RELEASED intent.
    """
    written: list[InstanceIntent] = []
    events: list[Event] = []
    changes: dict[str, Change] = {}
    for action in plan.actions:
        if isinstance(action, Launch):
            node_type = policy.node_type(action.node_type)
            assert node_type is not None, f"the plan launches {action.node_type}, which the policy lacks"
            request = forms.request(forms.new_launch_id(), action)
            written += _wanted(request, action, now_s)
            events.append(_launch_event(request, action, now_s))
            _add(changes, node_type.backend, Change(launch=(request,)))
        elif isinstance(action, Release):
            intent = intents[action.instance_id]
            written.append(released(intent, now_s=now_s, why=action.reason.text))
            events.append(_release_event(intent, action, now_s))
            _add(changes, intent.backend, Change(terminate=(intent.instance_id,)))
    drains = tuple(action for action in plan.actions if isinstance(action, Drain))
    return Recorded(tuple(written), tuple(events), changes, drains)


def without_launches(recorded: Recorded) -> Recorded:
    """Return what may be done of a round that could not be written down."""
    return replace(
        recorded,
        intents=tuple(one for one in recorded.intents if one.intent is not Intent.WANTED),
        events=tuple(one for one in recorded.events if one.kind not in {LAUNCH, AGAIN}),
        changes={backend: replace(one, launch=()) for backend, one in recorded.changes.items()},
        operator=None,
    )


def released(intent: InstanceIntent, *, now_s: float, why: str) -> InstanceIntent:
    return replace(intent, intent=Intent.RELEASED, released_at_s=now_s, release_reason=why)


def adopted(row: BackendInstance, *, backend: str, now_s: float) -> InstanceIntent:
    """Return the intent for a running instance of ours that the journal does not know."""
    return InstanceIntent(
        instance_id=row.instance_id,
        launch_id=row.instance_id.rpartition(".")[0],
        node_type=row.node_type,
        backend=backend,
        shape_id=row.shape_id,
        intent=Intent.WANTED,
        requested_at_s=row.started_at_s or now_s,
        reason="found running with this cluster's tags",
        adopted=True,
    )


def _wanted(request: LaunchRequest, action: Launch, now_s: float) -> list[InstanceIntent]:
    return [
        InstanceIntent(
            instance_id=instance_id,
            launch_id=request.launch_id,
            node_type=request.node_type.name,
            backend=request.node_type.backend,
            shape_id=request.node_type.shape_id,
            intent=Intent.WANTED,
            requested_at_s=now_s,
            reason=action.reason.text,
        )
        for instance_id in request.instance_ids
    ]


def _launch_event(request: LaunchRequest, action: Launch, now_s: float) -> Event:
    return Event(
        at_s=now_s,
        kind=LAUNCH,
        text=f"{request.count} × {request.node_type.name}: {action.reason.text}",
        instance_id=request.instance_ids[0],
        node_type=request.node_type.name,
        data={
            "launch_id": request.launch_id,
            "count": request.count,
            "why": action.reason.why.value,
            **dict(action.reason.data),
        },
    )


def _release_event(intent: InstanceIntent, action: Release, now_s: float) -> Event:
    return Event(
        at_s=now_s,
        kind="release",
        text=action.reason.text,
        instance_id=intent.instance_id,
        node_type=intent.node_type,
        data={"why": action.reason.why.value, **dict(action.reason.data)},
    )


def _add(changes: dict[str, Change], backend: str, change: Change) -> None:
    changes[backend] = changes.get(backend, Change()).merged(change)
