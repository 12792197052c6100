"""Ray as machines and controllers meet it: nodes, drains, the key-value store, the head's life."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from heliostat.model.demand import Constraint
from heliostat.model.instance import DrainReason
from heliostat.model.resources import Resources
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import DrainReply
from heliostat.sim.dice import Dice
from heliostat.sim.scenario import RayScenario
from heliostat.sim.world.agenda import Agenda
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.ray.node import Cut, Draining, Member, SimNode
from heliostat.sim.world.ray.scheduler import Means, Scheduler
from heliostat.sim.world.work import Ledger

HEAD_RESOURCE = "node:__internal_head__"

DRAINED_S = 0.5
"""An idle node is dead so long after an accepted drain, at most (seen)."""

RECONNECT_S = 60.0
"""A raylet that has lost the GCS for so long gives up (`gcs_rpc_server_reconnect_timeout_s`)."""

DEAD_SHOWN = 50
"""So many dead nodes stay listed; Ray keeps a thousand."""


class RaySim:
    """The truth about one Ray cluster. `alive` False: the head does not answer, to anyone.

    Workers know it by `session` and the key-value store `kv`. `beat_s` is when a controller was last heard.
    """

    def __init__(
        self,
        agenda: Agenda,
        dice: Dice,
        scenario: RayScenario,
        *,
        head: Member,
        ledger: Ledger,
        say: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._agenda = agenda
        self._say = say
        self._ids, self._late = dice.stream("ray ids"), dice.stream("ray reports")
        self._chance = dice.stream("ray drains")
        self.scenario = scenario
        self._head = head
        self.ledger = ledger
        self.nodes: dict[str, SimNode] = {}
        self._buried: deque[SimNode] = deque(maxlen=DEAD_SHOWN)
        means = Means(
            agenda=agenda,
            chance=dice.stream("ray placement"),
            nodes=self.nodes,
            report_s=lambda: self._late.uniform(*scenario.report_s),
            ledger=ledger,
            left_idle=self._left_idle,
        )
        self.scheduler = Scheduler(means)
        self.alive = True
        self.lives = self._deaths = 0
        self.kv: dict[str, str] = {}
        self.constraint: Constraint | None = None
        self.beat_s = agenda.now_s()
        self.reported_version = 0
        self._version = 0
        self._start_head()

    @property
    def drivers(self) -> int:
        return int(self.ledger.is_open or bool(self.ledger.unfinished))

    @property
    def session(self) -> str:
        return f"session_{self.lives}"

    # -- nodes --------------------------------------------------------------------

    def join(self, member: Member) -> str:
        """Let a node join; return its id."""
        node = self._added(member, is_head=False)
        self._say("ray", "joins", member.instance_id, node.node_id[:8])
        self.scheduler.gained(node)
        return node.node_id

    def node(self, node_id: str) -> SimNode | None:
        """Return a node that lives, or that the GCS takes to be alive."""
        return self.nodes.get(node_id)

    def leave(self, node_id: str, cause: Cause) -> None:
        """Let a node go at once; work on it is lost or tried again. Nothing happens if it has gone."""
        node = self.nodes.pop(node_id, None)
        if node is None:
            return
        self._say("ray", "loses", node.member.instance_id, cause.value)
        node.death = cause
        self._buried.append(node)
        self.scheduler.lost(node, cause)
        self._agenda.after(0.0, node.member.gone, cause)

    def silence(self, node_id: str, cause: Cause, *, notice_s: float) -> None:
        """Let a node fall silent; Ray gives it up after `notice_s`, and believes it alive until then."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.silent, node.cut_off = True, Cut(cause)
            self._agenda.after(notice_s, self._give_up_on, node, node.cut_off)

    def wake(self, node_id: str) -> None:
        """Let a node that was only cut off be heard again, unless the GCS has given it up."""
        node = self.nodes.get(node_id)
        if node is not None and node.silent:
            node.silent, node.cut_off = False, None
            self.scheduler.heard_again(node)
            self._left_idle(node)

    def _give_up_on(self, node: SimNode, cut: Cut) -> None:
        if node.cut_off is cut:
            self.leave(node.node_id, cut.cause)

    def _added(self, member: Member, *, is_head: bool) -> SimNode:
        node_id = f"{self._ids.getrandbits(224):056x}"
        node = SimNode(node_id, member, now_s=self._agenda.now_s(), is_head=is_head)
        self.nodes[node_id] = node
        return node

    # -- drains -------------------------------------------------------------------

    def drain(self, node_id: str, reason: DrainReason, deadline_s: float | None) -> DrainReply:
        """Answer as the GCS does; `deadline_s` is the true time. A node that has gone agrees to go."""
        node = self.nodes.get(node_id)
        if node is None:
            return DrainReply(accepted=True)
        if node.silent:
            return DrainReply(accepted=False)
        if reason is DrainReason.IDLE and not node.is_idle:
            return DrainReply(accepted=False, message="; ".join(node.activity()) or "not idle")
        self._say("ray", "drains", node.member.instance_id, reason.value)
        # Ray keeps the last drain of a node.
        node.draining = Draining(reason, deadline_s)
        self._left_idle(node)
        return DrainReply(accepted=True)

    def _left_idle(self, node: SimNode) -> None:
        if node.draining is not None and node.is_idle:
            # Nothing happens at a deadline: a drained node goes when it is idle, and only then.
            self._agenda.after(self._chance.uniform(0.05, DRAINED_S), self._drained, node)

    def _drained(self, node: SimNode) -> None:
        if node.is_alive and not node.silent:
            self.leave(node.node_id, Cause.DRAINED)

    # -- key-value store and heartbeat ----------------------------------------------

    def claim(self, instance_id: str, who: str) -> bool:
        """Take an instance's id for `who`, once and for all; say whether it is theirs."""
        return self.kv.setdefault(f"claim:{instance_id}", who) == who

    def forget_claims(self, instance_ids: tuple[str, ...]) -> None:
        for one in instance_ids:
            self.kv.pop(f"claim:{one}", None)

    def beat(self) -> None:
        self.beat_s = self._agenda.now_s()

    # -- the head -------------------------------------------------------------------

    def die(self) -> None:
        """Let the head's processes die. Work that runs goes on; nothing new is placed."""
        if self.alive:
            self._say("ray", "head dies")
            self.alive = self.scheduler.works = False
            self._deaths += 1
            self._agenda.after(RECONNECT_S, self._given_up, self._deaths)

    def come_back(self, *, with_state: bool) -> None:
        """Start the head again: with all it knew, or as another session that knows nobody."""
        if self.alive:
            return
        self._say("ray", "head is back" if with_state else "another head is there")
        if not with_state:
            self._forget_all()
        self._bury_head()
        self.alive = self.scheduler.works = True
        self._start_head()
        for node in list(self.nodes.values()):
            self.scheduler.gained(node)

    def _forget_all(self) -> None:
        """Begin another session: nodes of the last one find that they are unknown, and drivers are gone."""
        self._give_up_all()
        self._bury_head()
        self._buried.clear()
        self.scheduler.drop_all("head")
        self.lives += 1
        self.kv.clear()
        self.constraint = None

    def _start_head(self) -> None:
        units = Resources.of({HEAD_RESOURCE: 1})
        whole = Member(self._head.instance_id, self._head.node_type, self._head.resources.plus(units))
        self._added(whole, is_head=True)

    def _given_up(self, death: int) -> None:
        if not self.alive and self._deaths == death:
            self._give_up_all()

    def _give_up_all(self) -> None:
        for node in list(self.nodes.values()):
            if not node.is_head:
                self.leave(node.node_id, Cause.HEAD)

    def _bury_head(self) -> None:
        for node in [one for one in self.nodes.values() if one.is_head]:
            self.leave(node.node_id, Cause.HEAD)

    # -- what the GCS shows -----------------------------------------------------------

    def state(self) -> RayState:
        now_s = self._agenda.now_s()
        self._version += 1
        nodes = [one.seen(now_s) for one in (*self.nodes.values(), *self._buried)]
        nodes.sort(key=lambda one: one.node_id)
        return RayState(
            version=self._version,
            session_name=self.session,
            nodes=tuple(nodes),
            demands=self.scheduler.demands(),
            gangs=self.scheduler.gangs(),
            constraint=self.constraint,
        )
