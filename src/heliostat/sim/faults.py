"""What goes wrong: chance for each kind, drawn from the seed, and counted.

Nothing here reaches into the controller. Faults of a call strike in the membranes around its ports
(sim/membranes.py); those of a moment are sim/moments.py's; what the world does to itself is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from heliostat.sim.dice import Dice, Stream

CALLS: Mapping[str, str] = {
    "lost request": "a backend's call never arrives, and the caller hears so",
    "late request": "a backend's call seems lost, and acts seconds later",
    "lost reply": "a backend's call acts, and the caller hears only that it failed",
    "late reply": "a backend's call acts at once, and its answer takes up to minutes",
    "hung call": "a backend's call does nothing and never ends",
    "duplicate": "a change is carried out twice, by two clients at once",
    "partial launch": "some members of a launch are refused for want of machines",
    "rate limit": "a backend refuses a call for having been asked too often",
    "stale listing": "a listing is one of some seconds ago",
    "missing rows": "a listing lacks some rows",
    "doubled rows": "a listing has a row twice",
    "foreign row": "a listing has a row of another cluster",
    "slow gcs": "a call to Ray takes long, perhaps longer than its deadline",
    "lost drain reply": "Ray drains, and the controller does not hear it",
    "crash between journal and act": "the controller dies right after it has written intents",
    "crash between call and reply": "the controller dies when a change is done and not yet answered",
    "crash between drain and reply": "the controller dies when Ray has drained and not yet answered",
}
"""Kinds whose rate is a chance for each call."""

STEPS: Mapping[str, str] = {
    "controller crash": "the controller dies between any two of its callbacks",
}
"""Kinds whose rate is a chance for each step of the loop."""

MOMENTS: Mapping[str, str] = {
    "controller pause": "the controller's process stops for a while and goes on",
    "dead gcs": "Ray's head answers nobody for a while",
    "head restart": "Ray's head dies and comes back with its state",
    "head loss": "Ray's head dies and another one is there, without its state",
    "backend outage": "a backend answers nobody for a while",
    "disk full": "the journal's disk takes nothing more for a while",
    "journal loss": "the controller dies, and the next one finds no journal",
    "clock jump": "the head's wall clock is set, forward or back",
    "swizzle": "some machines fall silent one by one and come back in another order",
    "change outage": "a backend lists what it has, and takes no change for a while",
}
"""Kinds whose rate is how often they strike in an hour."""

RACES: Mapping[str, str] = {
    "work at a drain": "work arrives in the moment in which an idle node is to be drained",
}
"""Kinds whose rate is a chance for each call, and that are nobody's fault."""

KINDS: Mapping[str, str] = {**CALLS, **STEPS, **MOMENTS, **RACES}


class Mischief:
    """Draws for each kind from a stream of its own, as often as `rates` say, until `stop()`.

    `happened` counts what struck, by kind.
    """

    def __init__(self, rates: Mapping[str, float], *, dice: Dice) -> None:
        unknown = sorted(rates.keys() - KINDS.keys())
        assert not unknown, f"no such kinds of fault: {unknown}"
        self.happened: Counter[str] = Counter()
        self._rates = {kind: rate for kind, rate in rates.items() if rate > 0}
        self._streams: dict[str, Stream] = {kind: dice.stream(f"fault {kind}") for kind in self._rates}

    def stop(self) -> None:
        """Let nothing strike any more."""
        self._rates = {}

    def strikes(self, kind: str) -> bool:
        """Draw for one call; say whether the fault strikes, and count it."""
        rate = self._rates.get(kind)
        if rate is None or self._streams[kind].random() >= rate:
            return False
        self.happened[kind] += 1
        return True

    def rate(self, kind: str) -> float:
        return self._rates.get(kind, 0.0)

    def draw(self, kind: str) -> Stream:
        """Return the stream for the details of a fault that struck."""
        return self._streams[kind]

    def wait(self, kind: str) -> float:
        """Return after how many hours, or steps, the next one of a kind with a rate strikes."""
        return self._streams[kind].expovariate(self._rates[kind])
