"""What people do to a running cluster by its commands, and to its file: the seed decides what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from heliostat.control.loop import Controller
from heliostat.control.operations import Operations
from heliostat.model.node_type import ClusterSpec, NodeType
from heliostat.ports.errors import HeliostatError
from heliostat.sim.dice import Dice, Stream
from heliostat.sim.moments import S_PER_H
from heliostat.sim.process import Killed
from heliostat.sim.scenario import Span
from heliostat.sim.wrapper import Wrapper

KINDS: Mapping[str, str] = {
    "add": "one or two more workers of a type are asked for",
    "remove": "a worker is to go, when it is idle or by a time",
    "protect": "a worker is to stay for a while, whatever happens",
    "pause": "deciding is paused for a while",
    "apply": "the cluster file is changed and applied",
    "down": "the cluster is to go",
}
"""Each is what the command of that name does; its rate is how often it is given in an hour."""

LASTS_S: Span = (5.0, 40.0)
"""How long a pause lasts, and a protection."""

AGAIN_S = 1.0
"""Whoever finds no controller looks for it again so much later."""

Deed = Callable[[Operations, Controller], Coroutine[Any, Any, object]]


class People:
    """Ask the living controller until `end()`, which takes back what would keep the cluster from its rest.

    What no controller hears, or what one refuses, is not repeated; but who has paused lets it go on again.
    """

    def __init__(self, wrapper: Wrapper, rates: Mapping[str, float], *, dice: Dice) -> None:
        unknown = sorted(rates.keys() - KINDS.keys())
        assert not unknown, f"no such commands: {unknown}"
        self._wrapper = wrapper
        self._host = wrapper.host
        self._rates = {kind: rate for kind, rate in rates.items() if rate > 0}
        self._chance: Mapping[str, Stream] = {kind: dice.stream(f"people {kind}") for kind in self._rates}
        self._asked: tuple[Controller, Operations] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self._deeds: Mapping[str, Deed] = {
            "add": self._add,
            "remove": self._remove,
            "protect": self._protect,
            "pause": self._pause,
            "apply": self._apply,
            "down": lambda asked, _: asked.down(),
        }

    def begin(self) -> None:
        for kind in self._rates:
            self._plan(kind)

    def end(self) -> None:
        """Ask for nothing more; let deciding go on, and nothing be protected."""
        self._over = True
        if self._rates:
            self._take_back()

    def _take_back(self) -> None:
        """Take all back once nothing is under way any more, which might ask for something still."""
        same = self._asked is not None and self._asked[0] is self._wrapper.controller
        if same and any(not one.done() for one in self._tasks):
            self._host.loop.apart(AGAIN_S, self._take_back)
        else:
            self._host.witness.protected.clear()
            self._host.witness.goes_on(self._host.loop.time())
            self._ask_until_heard(_taking_back)

    def _plan(self, kind: str) -> None:
        wait_s = self._chance[kind].expovariate(self._rates[kind] / S_PER_H)
        self._host.loop.apart(wait_s, self._strike, kind)

    def _strike(self, kind: str) -> None:
        if not self._over:
            if self._ask(self._deeds[kind]):
                self._host.mischief.happened[f"{kind} by hand"] += 1
            self._plan(kind)

    # -- asking -------------------------------------------------------------------------

    def _ask(self, deed: Deed) -> bool:
        """Let the living controller do it; say whether there is one."""
        controller, process = self._wrapper.controller, self._wrapper.process
        if controller is None or process is None or process.shelf is not None:
            return False
        if self._asked is None or self._asked[0] is not controller:
            self._asked, self._tasks = (controller, Operations(controller)), []
        self._host.witness.asked_by_hand += 1
        task = process.start(self._worded(deed, self._asked[1], controller))
        task.add_done_callback(self._done)
        self._tasks.append(task)
        return True

    def _ask_until_heard(self, deed: Deed) -> None:
        if not self._wrapper.is_down and not self._ask(deed):
            self._host.loop.apart(AGAIN_S, self._ask_until_heard, deed)

    async def _worded(self, deed: Deed, asked: Operations, controller: Controller) -> None:
        try:
            self._host.trace.add("people", "hear", await deed(asked, controller))
        except HeliostatError as error:
            self._host.trace.add("people", "are refused", error)

    def _done(self, task: asyncio.Task[None]) -> None:
        error = task.exception()
        if error is not None and not isinstance(error, Killed):
            self._wrapper.surprises.append(f"a command ended with {error!r}")

    # -- what is asked --------------------------------------------------------------------

    async def _add(self, asked: Operations, controller: Controller) -> object:
        chance = self._chance["add"]
        node_type = chance.choice(controller.policy.node_types)
        count = chance.randint(1, 2)
        self._host.witness.added += count
        answer = await asked.add(node_type.name, count)
        self._protected(*answer["instance_ids"])
        return answer

    async def _remove(self, asked: Operations, controller: Controller) -> object:
        instance_id = self._one_of(controller, "remove")
        if instance_id is None:
            return None
        witness, deadline_s = self._host.witness, self._chance["remove"].choice((None, 5.0, 30.0))
        witness.removed.add(instance_id)
        witness.protected.pop(instance_id, None)
        witness.due_s.pop(instance_id, None)
        answer = await asked.remove(instance_id, deadline_s)
        # It takes a round until this is answered; who protects it meanwhile takes it back.
        if deadline_s is not None and instance_id not in witness.protected:
            witness.due_s[instance_id] = self._host.loop.time() + deadline_s
            witness.timed.add(instance_id)
        return answer

    async def _protect(self, asked: Operations, controller: Controller) -> object:
        instance_id = self._one_of(controller, "protect")
        if instance_id is None:
            return None

        def let_go(later: Operations, _: Controller) -> Coroutine[Any, Any, object]:
            self._host.witness.protected.pop(instance_id, None)
            return later.protect(instance_id, False)

        self._host.loop.apart(self._chance["protect"].uniform(*LASTS_S), self._ask_until_heard, let_go)
        self._host.witness.due_s.pop(instance_id, None)
        answer = await asked.protect(instance_id, True)
        self._protected(instance_id)
        return answer

    def _protected(self, *instance_ids: str) -> None:
        self._host.witness.protected.update(dict.fromkeys(instance_ids, self._host.loop.time()))

    async def _pause(self, asked: Operations, _: Controller) -> object:
        self._host.loop.apart(self._chance["pause"].uniform(*LASTS_S), self._ask_until_heard, self._go_on)
        answer = await asked.pause(True)
        self._host.witness.paused(self._host.loop.time())
        return answer

    async def _go_on(self, asked: Operations, _: Controller) -> object:
        self._host.witness.goes_on(self._host.loop.time())
        return await asked.pause(False)

    async def _apply(self, asked: Operations, _: Controller) -> object:
        file = self._host.file
        file.spec = changed(file.spec, self._chance["apply"])
        self._host.witness.applied(self._host.loop.time())
        return await asked.apply()

    def _one_of(self, controller: Controller, kind: str) -> str | None:
        wanted = sorted(one.instance_id for one in controller.memory.wanted())
        return self._chance[kind].choice(wanted) if wanted else None


async def _taking_back(asked: Operations, controller: Controller) -> None:
    await asked.pause(False)
    for instance_id in sorted(controller.memory.operator.protected):
        try:
            await asked.protect(instance_id, False)
        except HeliostatError:
            continue  # It has gone meanwhile.


def changed(spec: ClusterSpec, chance: Stream) -> ClusterSpec:
    """Return the file after one change that a running cluster takes, or after none at all."""
    policy = spec.policy
    what = chance.choice(("nothing", "most", "idle", "money", "type", "shape"))
    if what == "most":
        policy = replace(policy, max_workers=chance.choice((2, 4, 8, 20)))
    elif what == "idle":
        policy = replace(policy, idle_timeout_s=chance.choice((5.0, 15.0, 60.0)))
    elif what == "money":
        policy = replace(policy, max_cost_usd_per_h=chance.choice((None, 3.0, 10.0)))
    elif what in ("type", "shape"):
        number = chance.randrange(len(policy.node_types))
        types = list(policy.node_types)
        types[number] = _changed_type(types[number], number, chance, shape=what == "shape")
        policy = replace(policy, node_types=tuple(types))
    return replace(spec, policy=policy)


def _changed_type(one: NodeType, number: int, chance: Stream, *, shape: bool) -> NodeType:
    if shape:
        return replace(one, shape_id=f"{one.shape_id}'")
    # Two floors at most: `max_workers` may be two.
    floor = chance.choice((0, 0, 1)) if number < 2 else 0
    return replace(one, max_workers=chance.choice((2, 4, 8, 20)), min_workers=floor)
