"""Who holds what of this machine, what is left, and how a refusal reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from heliostat.model.resources import SCALE, Resources
from heliostat.ports.errors import InsufficientCapacity, InvalidRequest, ProviderError
from heliostat.providers.local.inventory import Machine

NAMES_SPELLED_OUT = 8
ASKED_FOR = ""  # The name of a holder that is only thought of.
GIB = 2**30


@dataclass(frozen=True)
class Holder:
    """The head or a worker, by the name that people see, and what it holds."""

    name: str
    resources: Resources
    gpus: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        return memory_of(self.resources)


@dataclass(frozen=True)
class Room:
    """The machine, its GPUs in the order in which they are handed out, and their holders."""

    machine: Machine
    gpus: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()

    def place(self, wanted: Resources) -> tuple[str, ...]:
        """Return the GPUs for one more worker of these resources: the lowest that are free.

        Raises InsufficientCapacity where something is taken by others, InvalidRequest
        where this machine never has it.
        """
        gpus = self._place_gpus(wanted)
        self._place_cpus(wanted.get("CPU"))
        self._place_memory(memory_of(wanted))
        return gpus

    def with_holder(self, holder: Holder) -> Room:
        return replace(self, holders=(*self.holders, holder))

    def how_many(self, wanted: Resources, limit: int) -> tuple[int, ProviderError | None]:
        """Return how many more fit, `limit` at most, and what stops the next one below it."""
        room = self
        for count in range(limit):
            try:
                gpus = room.place(wanted)
            except ProviderError as error:
                return count, error
            room = room.with_holder(Holder(ASKED_FOR, wanted, gpus))
        return limit, None

    def _place_gpus(self, wanted: Resources) -> tuple[str, ...]:
        scaled = wanted.get("GPU")
        if scaled % SCALE:
            raise InvalidRequest(
                f"{scaled / SCALE:g} GPU is asked for; this backend gives whole GPUs only: "
                "ask for a whole number, and let tasks take parts of it"
            )
        count = scaled // SCALE
        if count > len(self.gpus):
            has = len(self.gpus) or "none"
            raise InvalidRequest(f"{_number(count, 'GPU')} wanted, this machine has {has}")
        taken = {gpu for holder in self.holders for gpu in holder.gpus}
        free = [gpu for gpu in self.gpus if gpu not in taken]
        if count > len(free):
            raise InsufficientCapacity(self._no_gpu(count, free))
        return tuple(free[:count])

    def _no_gpu(self, count: int, free: Sequence[str]) -> str:
        taken = [gpu for gpu in self.gpus if gpu not in free]
        names = _names(holder.name for holder in self.holders if holder.gpus)
        verb = "is" if len(taken) == 1 else "are"
        by = f"{spans(taken)} {verb} taken by {names}"
        return f"{_shortage('GPU', count, len(free))}: {by}"

    def _place_cpus(self, wanted: int) -> None:
        total = self.machine.cpus * SCALE
        if wanted > total:
            raise InvalidRequest(
                f"{_number(wanted / SCALE, 'CPU')} wanted, this machine has {self.machine.cpus}; "
                "to share them out more than once, declare more in provider.backends.local.cpus"
            )
        taken = sum(holder.resources.get("CPU") for holder in self.holders)
        if wanted > total - taken:
            names = _names(holder.name for holder in self.holders if holder.resources.get("CPU"))
            shortage = _shortage("CPU", wanted / SCALE, max(0, total - taken) / SCALE)
            verb = "is" if taken == SCALE else "are"
            raise InsufficientCapacity(
                f"{shortage}: {taken / SCALE:g} of {self.machine.cpus} {verb} taken by {names}"
            )

    def _place_memory(self, wanted: int) -> None:
        total = self.machine.memory_bytes
        if wanted > total:
            raise InvalidRequest(
                f"{_gib(wanted)} of memory are wanted, this machine has {_gib(total)} for this cluster"
            )
        taken = sum(holder.memory_bytes for holder in self.holders)
        if wanted > total - taken:
            left = max(0, total - taken)
            names = _names(holder.name for holder in self.holders if holder.memory_bytes)
            lack = f"{_gib(wanted)} of memory are wanted, {_gib(left)} are left"
            shortage = "no memory is left" if left < GIB / 20 else lack
            raise InsufficientCapacity(f"{shortage}: {taken / GIB:.1f} of {_gib(total)} are taken by {names}")


def memory_of(resources: Resources) -> int:
    """Return the bytes that a node of these resources may fill: its heap and its object store."""
    return (resources.get("memory") + resources.get("object_store_memory")) // SCALE


def slot_text(gpus: Sequence[str]) -> str:
    """Return what a worker holds, in words for people: `GPU 1`, `GPUs 1–2`, or nothing."""
    if not gpus:
        return ""
    return f"GPU{'s' if len(gpus) > 1 else ''} {spans(gpus)}"


def spans(ids: Sequence[str]) -> str:
    """Return ids with runs of numbers drawn together: `0–2, 5`; other ids as they are."""
    numbers = sorted(int(one) for one in ids if one.isdigit())
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return ", ".join([*texts, *(one for one in ids if not one.isdigit())])


def lowest_free_name(taken: Iterable[str]) -> str:
    """Return the lowest `w<N>`, from w1, that nobody has."""
    used = set(taken)
    number = 1
    while f"w{number}" in used:
        number += 1
    return f"w{number}"


def _names(names: Iterable[str]) -> str:
    """List names, workers in the order of their numbers; long lists get runs drawn together."""
    every = list(names)
    listed = [one for one in every if one != ASKED_FOR]
    numbers = sorted((one[1:] for one in listed if re.fullmatch(r"w\d+", one)), key=int)
    workers = [f"w{number}" for number in numbers]
    if len(listed) > NAMES_SPELLED_OUT:
        workers = [re.sub(r"(\d+)", r"w\1", spans(numbers))]
    text = ", ".join([*(one for one in listed if not re.fullmatch(r"w\d+", one)), *workers])
    if ASKED_FOR not in every:
        return text
    return f"{text} and what is asked for" if text else "what is asked for"


def _number(count: float, noun: str) -> str:
    return f"1 {noun} is" if count == 1 else f"{count:g} {noun}s are"


def _shortage(noun: str, wanted: float, left: float) -> str:
    if left <= 0:
        return f"no {noun} is left"
    return f"{_number(wanted, noun)} wanted, {left:g} {'is' if left == 1 else 'are'} left"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}".removesuffix(".0") + " GiB"
