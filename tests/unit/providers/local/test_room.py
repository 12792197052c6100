"""Who gets what, and how a refusal reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.node_type import NodeType
from heliostat.model.resources import SCALE, Resources
from heliostat.ports.errors import InsufficientCapacity, InvalidRequest, ProviderError
from heliostat.providers.local.completion import complete_type, misfits
from heliostat.providers.local.inventory import Machine
from heliostat.providers.local.room import Holder, Room, lowest_free_name, memory_of, slot_text, spans

GIB = 2**30
MACHINE = Machine(cpus=8, memory_bytes=8 * GIB, shm_bytes=4 * GIB)


def units(**amounts: float) -> Resources:
    return Resources.of(amounts)


def holder(name: str, *gpus: str, **amounts: float) -> Holder:
    return Holder(name, units(**amounts), gpus)


def four_gpus(*holders: Holder) -> Room:
    return Room(MACHINE, ("0", "1", "2", "3"), holders)


def test_workers_get_the_lowest_free_gpus() -> None:
    room = four_gpus(holder("head", "0", GPU=1), holder("w2", "2", GPU=1))
    assert room.place(units(GPU=2)) == ("1", "3")
    assert room.place(units(CPU=1)) == ()


def test_no_gpu_is_left() -> None:
    workers = [holder(f"w{number}", str(number), GPU=1) for number in (3, 1, 2)]
    room = four_gpus(holder("head", "0", GPU=1), *workers)
    with pytest.raises(InsufficientCapacity) as refusal:
        room.place(units(GPU=1))
    assert str(refusal.value) == "no GPU is left: 0–3 are taken by head, w1, w2, w3"


def test_some_gpus_are_left_but_not_enough() -> None:
    room = four_gpus(holder("w1", "0", "1", "2", GPU=3))
    with pytest.raises(InsufficientCapacity) as refusal:
        room.place(units(GPU=2))
    assert str(refusal.value) == "2 GPUs are wanted, 1 is left: 0–2 are taken by w1"


def test_a_single_gpu_is_named_alone() -> None:
    room = Room(MACHINE, ("5",), (holder("head", "5", GPU=1),))
    with pytest.raises(InsufficientCapacity, match=r"^no GPU is left: 5 is taken by head$"):
        room.place(units(GPU=1))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (units(GPU=5), "5 GPUs are wanted, this machine has 4"),
        (units(GPU=0.5), "0.5 GPU is asked for; this backend gives whole GPUs only"),
        (units(CPU=9), "9 CPUs are wanted, this machine has 8; "),
        (units(memory=9 * GIB), "9 GiB of memory are wanted, this machine has 8 GiB for this cluster"),
    ],
)
def test_what_never_fits_is_refused_for_good(wanted: Resources, words: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        four_gpus().place(wanted)
    assert str(refusal.value).startswith(words)


def test_a_machine_without_gpus_says_so() -> None:
    with pytest.raises(InvalidRequest, match=r"^1 GPU is wanted, this machine has none$"):
        Room(MACHINE).place(units(GPU=1))


@pytest.mark.parametrize(
    ("holders", "wanted", "words"),
    [
        ([holder("head", CPU=1), holder("w1", CPU=7)], 1, "no CPU is left: 8 of 8 are taken by head, w1"),
        ([holder("head", CPU=1)], 8, "8 CPUs are wanted, 7 are left: 1 of 8 is taken by head"),
        (
            [holder("head"), holder("w1", CPU=7.5)],
            1,
            "1 CPU is wanted, 0.5 are left: 7.5 of 8 are taken by w1",
        ),
        ([holder("head", CPU=9)], 1, "no CPU is left: 9 of 8 are taken by head"),
    ],
)
def test_no_cpu_is_left(holders: list[Holder], wanted: float, words: str) -> None:
    with pytest.raises(InsufficientCapacity) as refusal:
        Room(MACHINE, (), tuple(holders)).place(units(CPU=wanted))
    assert str(refusal.value) == words


def test_memory_counts_the_object_store_too() -> None:
    room = Room(MACHINE, (), (holder("head", memory=5 * GIB, object_store_memory=2 * GIB),))
    assert room.place(units(memory=GIB)) == ()
    with pytest.raises(InsufficientCapacity) as refusal:
        room.place(units(memory=GIB, object_store_memory=GIB))
    assert str(refusal.value) == (
        "2 GiB of memory are wanted, 1 GiB are left: 7.0 of 8 GiB are taken by head"
    )
    full = room.with_holder(holder("w1", memory=GIB))
    with pytest.raises(
        InsufficientCapacity, match=r"^no memory is left: 8\.0 of 8 GiB are taken by head, w1$"
    ):
        full.place(units(memory=GIB))


def test_long_lists_of_names_are_drawn_together() -> None:
    holders = [holder(f"w{number}", CPU=0.5) for number in range(1, 15) if number != 4]
    room = Room(MACHINE, (), (holder("head", CPU=1.5), *holders))
    with pytest.raises(InsufficientCapacity, match=r"taken by head, w1–w3, w5–w14$"):
        room.place(units(CPU=1))


def test_an_offer_counts_and_says_what_stops_it() -> None:
    room = four_gpus(holder("head", "0", GPU=1))
    assert room.how_many(units(GPU=1), 2) == (2, None)
    count, obstacle = room.how_many(units(GPU=1), 9)
    assert count == 3
    assert str(obstacle) == "no GPU is left: 0–3 are taken by head and what is asked for"


@given(
    asks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 3)), max_size=20),
)
def test_nothing_is_ever_given_twice(asks: list[tuple[int, int, int]]) -> None:
    room = four_gpus()
    for number, (gpus, cpus, gib) in enumerate(asks):
        wanted = units(GPU=gpus, CPU=cpus, memory=gib * GIB)
        try:
            given_gpus = room.place(wanted)
        except ProviderError:
            continue
        assert len(given_gpus) == gpus
        room = room.with_holder(Holder(f"w{number}", wanted, given_gpus))
    taken = [gpu for one in room.holders for gpu in one.gpus]
    assert len(taken) == len(set(taken))
    assert sum(one.resources.get("CPU") for one in room.holders) <= 8 * SCALE
    assert sum(one.memory_bytes for one in room.holders) <= 8 * GIB


def test_texts_of_slots_and_spans() -> None:
    assert slot_text([]) == ""
    assert slot_text(["1"]) == "GPU 1"
    assert slot_text(["1", "2"]) == "GPUs 1–2"
    assert slot_text(["MIG-a", "3"]) == "GPUs 3, MIG-a"
    assert spans(["9", "0", "2", "1", "5"]) == "0–2, 5, 9"


def test_names_are_the_lowest_free() -> None:
    assert lowest_free_name([]) == "w1"
    assert lowest_free_name(["w1", "w3", "odd"]) == "w2"


def node_type(name: str = "cpu", minimum: int = 0, **amounts: float) -> NodeType:
    return NodeType(name, "local", units(**amounts), "s", min_workers=minimum, max_workers=99)


def test_memory_is_shared_out_by_cpus() -> None:
    whole = complete_type(node_type(CPU=2), MACHINE)
    assert whole.resources.units()["memory"] == int(0.25 * 0.6 * 8 * GIB)
    assert whole.resources.units()["object_store_memory"] == int(0.25 * 0.3 * 8 * GIB)


def test_the_object_store_stays_within_shared_memory() -> None:
    small = Machine(cpus=2, memory_bytes=8 * GIB, shm_bytes=GIB)
    assert complete_type(node_type(CPU=2), small).resources.units()["object_store_memory"] == int(0.95 * GIB)
    tiny = Machine(cpus=64, memory_bytes=GIB, shm_bytes=64 * 2**20)
    assert complete_type(node_type(CPU=1), tiny).resources.units()["object_store_memory"] == 75 * 2**20


def test_what_a_type_says_itself_stands() -> None:
    said = NodeType("a", "local", units(CPU=1, memory=5), "s", options={"object_store_memory": "1GiB"})
    assert complete_type(said, MACHINE).resources.units() == {
        "CPU": 1,
        "memory": 5,
        "object_store_memory": GIB,
    }
    wrong = NodeType("a", "local", units(CPU=1), "s", options={"object_store_memory": "big"})
    with pytest.raises(InvalidRequest, match="object_store_memory is 'big'"):
        complete_type(wrong, MACHINE)


@given(cpus=st.integers(1, 256), per_worker=st.integers(1, 16), memory_gib=st.integers(32, 4096))
def test_completed_types_fill_all_cpus_and_never_run_out_of_memory(
    cpus: int, per_worker: int, memory_gib: int
) -> None:
    machine = Machine(cpus, memory_gib * GIB, memory_gib * GIB // 2)
    whole = complete_type(node_type(CPU=min(per_worker, cpus)), machine).resources
    head = complete_type(node_type(CPU=0), machine).resources
    count = cpus // min(per_worker, cpus)
    assert memory_of(whole) * count + memory_of(head) <= machine.memory_bytes


def test_check_tells_what_does_not_fit() -> None:
    room = four_gpus(holder("head", CPU=1))
    good, huge, half = node_type(CPU=1), node_type("huge", CPU=99), node_type("half", GPU=0.5)
    assert misfits([good], room) == []
    problems = misfits([good, huge, half], room)
    assert [problem.split(":")[0] for problem in problems] == ["huge", "half"]
    assert misfits([node_type("many", 3, CPU=3)], room) == [
        "many: only 2 of its min_workers 3 fit: 3 CPUs are wanted, 1 is left: "
        "7 of 8 are taken by head and what is asked for"
    ]
    store = node_type("store", object_store_memory=5 * GIB)
    assert misfits([store], room) == [
        f"store: its object store of {5 * GIB} bytes is larger than /dev/shm ({4 * GIB} bytes)"
    ]
