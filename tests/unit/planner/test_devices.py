"""Single devices: exact where they are known, believed by their sum where Ray tells no more, then doubted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.demand import Demand, GangStrategy
from heliostat.model.instance import BackendState
from heliostat.model.plan import Why
from heliostat.model.resources import SCALE, Resources
from heliostat.planner.devices import Devices, copies_on, fresh, take, take_parts
from heliostat.planner.limits import SCARCE, SHARE_REPORTS
from heliostat.planner.mixes import CELLS, best_mix
from tests.examples import many
from tests.unit.planner.optimum import devices_hold
from tests.unit.planner.world import World, demand, drained, gang, kind, launched, policy, released

ONE = 10_000


@pytest.mark.parametrize(
    ("amount", "devices"),
    [(0, ()), (ONE, (ONE,)), (3 * ONE, (ONE,) * 3), (2 * ONE + 5000, (5000, ONE, ONE)), (4000, (4000,))],
)
def test_fresh(amount: int, devices: Devices) -> None:
    assert fresh(amount) == devices


@pytest.mark.parametrize(
    ("devices", "amount", "copies"),
    [
        ((), ONE, 0),
        ((ONE, ONE), ONE, 2),
        ((ONE, ONE), 2 * ONE, 1),
        ((ONE, ONE, ONE), 2 * ONE, 1),
        ((4000, 4000), 6000, 0),
        ((4000, 6000), 6000, 1),
        ((4000, ONE), 4000, 3),
        ((5000, 5000), ONE, 0),
        ((5000, ONE), ONE, 1),
        ((ONE, ONE), 6000, 2),
        ((ONE, ONE), 3334, 4),
        ((ONE, ONE), 3333, 6),
        ((ONE,), 1, 10_000),
        # A whole one and a share, each on devices of its own.
        ((ONE, ONE), 15_000, 1),
        ((5000, ONE), 15_000, 1),
        ((4000, ONE), 15_000, 0),
        ((ONE, ONE, ONE), 15_000, 2),
        ((5000, 5000, ONE, ONE), 15_000, 2),
    ],
)
def test_copies_on(devices: Devices, amount: int, copies: int) -> None:
    assert copies_on(devices, amount) == copies


@pytest.mark.parametrize(
    ("devices", "amount", "copies", "left"),
    [
        ((ONE, ONE), ONE, 1, (ONE,)),
        ((ONE, ONE), ONE, 2, ()),
        ((ONE, ONE), 6000, 1, (4000, ONE)),
        ((ONE, ONE), 6000, 2, (4000, 4000)),
        # The fullest that holds it: whole ones stay whole.
        ((4000, ONE), 4000, 1, (ONE,)),
        ((4000, ONE), 5000, 1, (4000, 5000)),
        ((3000, 4000, ONE), 4000, 1, (3000, ONE)),
        ((5000, ONE, ONE), 2 * ONE, 1, (5000,)),
        ((5000, ONE, ONE), 15_000, 1, (ONE,)),
        ((ONE, ONE), 15_000, 1, (5000,)),
        ((4000, ONE), 4000, 0, (4000, ONE)),
    ],
)
def test_take(devices: Devices, amount: int, copies: int, left: Devices) -> None:
    assert take(devices, amount, copies) == left


def test_taking_what_is_not_there_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        take((4000, 4000), 6000, 1)


devices_left = st.lists(st.integers(1, 5).map(lambda n: n * 2000), max_size=4).map(
    lambda one: tuple(sorted(one))
)


@many(300)
@given(devices_left, st.integers(1, 12).map(lambda n: n * 2000))
def test_as_many_copies_as_can_be_had_and_taking_them_leaves_the_rest(devices: Devices, amount: int) -> None:
    count = copies_on(devices, amount)
    assert count == most_copies(devices, amount)
    left = take(devices, amount, count)
    assert sum(left) == sum(devices) - count * amount
    assert left == tuple(sorted(left))
    assert copies_on(left, amount) == 0


@lru_cache(maxsize=10_000)
def most_copies(devices: Devices, amount: int) -> int:
    """Try every way to take one copy after another."""
    whole, share = divmod(amount, ONE)
    if devices.count(ONE) < whole:
        return 0
    free = list(devices)
    for _ in range(whole):
        free.remove(ONE)
    if not share:
        return 1 + most_copies(tuple(free), amount)
    rooms = {left for left in free if left >= share}
    after = [_with_less(free, room, share) for room in rooms]
    return max((1 + most_copies(one, amount) for one in after), default=0)


def _with_less(free: Sequence[int], room: int, share: int) -> Devices:
    left = list(free)
    left.remove(room)
    return tuple(sorted(one for one in (*left, room - share) if one))


class TestMixes:
    @many(300)
    @given(
        st.lists(st.integers(1, 19).map(lambda n: n * 500), min_size=1, max_size=4),
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5, 0.7, 1.0, -0.5]), min_size=4, max_size=4),
    )
    def test_worth_as_much_as_any_other_that_fits(self, sizes: list[int], values: list[float]) -> None:
        mix = best_mix(dict(enumerate(sizes)), values)
        assert sum(sizes[item] * n for item, n in mix.items()) <= ONE
        assert all(n > 0 for n in mix.values())
        assert worth(mix.items(), values) == pytest.approx(best_worth(sizes, values), abs=1e-9)

    def test_it_prefers_what_fills_a_device(self) -> None:
        assert best_mix({0: 6000, 1: 4000, 2: 5500}, [0.6, 0.4, 0.55]) == {0: 1, 1: 1}
        assert best_mix({3: 7500, 1: 2500}, [0.0, 0.3, 0.0, 0.7]) == {1: 4}

    def test_shares_too_fine_to_be_tried_out_are_left_to_others(self) -> None:
        assert best_mix({0: 5000, 1: 3333}, [1.0, 1.0]) == {}
        assert best_mix({0: ONE // CELLS}, [1.0]) == {0: CELLS}
        assert best_mix({}, []) == {}

    def test_nothing_that_is_worth_nothing(self) -> None:
        assert best_mix({0: 5000, 1: 2500}, [0.0, -1.0]) == {}


def worth(mix: object, values: Sequence[float]) -> float:
    return sum(values[item] * n for item, n in mix)  # type: ignore[attr-defined]


def best_worth(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Try every number of every item but the last, of which as many are taken as fit."""
    best = 0.0
    *first, last = sizes
    for counts in product(*(range(ONE // size + 1) for size in first)):
        room = ONE - sum(n * size for n, size in zip(counts, first, strict=True))
        if room >= 0:
            found = sum(n * value for n, value in zip(counts, values, strict=False))
            best = max(best, found + max(0.0, values[len(first)]) * (room // last))
    return best


GPUS = kind("gpu", 32, 2)


def nodes(*asked: tuple[int, float], gpus: int = 2, name: str = "GPU") -> int:
    """Return how many new nodes with so many devices are launched for (count, devices each)."""
    resources = Resources.of({"CPU": 64, name: gpus})
    world = World(policy=policy(kind(resources=resources, max_workers=200), max_workers=200))
    world.demands = tuple(demand(count, "", **{name: each}) for count, each in asked)
    return launched(world.round()).get("cpu", 0)


class TestNewNodes:
    @pytest.mark.parametrize(
        ("asked", "count"),
        [
            ([(2, 0.6), (2, 0.4)], 1),
            ([(3, 0.6)], 2),
            ([(4, 0.6)], 2),
            ([(5, 0.6)], 3),
            ([(4, 0.5)], 1),
            ([(5, 0.5)], 2),
            ([(6, 0.3)], 1),
            ([(7, 0.3)], 2),
            ([(4, 0.6), (4, 0.4)], 2),
            ([(2, 0.75), (2, 0.25)], 1),
            ([(1, 1), (1, 0.6), (1, 0.4)], 1),
            ([(1, 1), (2, 0.6)], 2),
            ([(1, 2), (1, 0.1)], 2),
            ([(2, 0.5), (2, 0.3), (2, 0.2)], 1),
            ([(20_000, 0.0001)], 1),
            ([(20_001, 0.0001)], 2),
            # Three of a third are a hair less than a device.
            ([(6, 0.3333)], 1),
            ([(6, 0.3334)], 2),
        ],
    )
    def test_shares_lie_within_one_device(self, asked: list[tuple[int, float]], count: int) -> None:
        assert nodes(*asked) == count

    @pytest.mark.parametrize("name", sorted(SCARCE))
    def test_whatever_the_device(self, name: str) -> None:
        assert nodes((3, 0.6), name=name) == 2

    def test_other_resources_have_no_devices(self) -> None:
        assert nodes((3, 0.6), name="licence") == 1

    def test_a_share_of_a_type_with_less_than_a_device(self) -> None:
        assert nodes((2, 0.25), gpus=0.5) == 1  # type: ignore[arg-type]
        assert nodes((1, 0.6), gpus=0.5) == 0  # type: ignore[arg-type]

    @many(150)
    @given(
        st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from([0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1, 2])),
            min_size=1,
            max_size=3,
            unique_by=lambda one: one[1],
        )
    )
    def test_they_hold_what_they_are_for_and_are_hardly_more_than_that_takes(
        self, asked: list[tuple[int, float]]
    ) -> None:
        """Sums alone would do with fewer nodes than there have to be."""
        parts = sorted((round(each * ONE) for count, each in asked for _ in range(count)), reverse=True)
        need = next(n for n in range(1, 20) if splits(tuple(parts), n))
        assert need <= nodes(*asked) <= need + 1

    def test_many_shares_are_mixed_so_that_they_fill_devices(self) -> None:
        """In all they are 77.65 devices; filled by size and worth alone they took 85."""
        assert 78 <= nodes((73, 0.45), (96, 0.3), (64, 0.25), gpus=1) <= 80

    def test_what_comes_and_what_is_unused_is_counted_by_device_too(self) -> None:
        """The sums of both have room for the third."""
        world = World(policy=policy(GPUS), demands=(demand(3, GPU=0.6),))
        world.coming("gpu", BackendState.STARTING)
        assert launched(world.round()) == {"gpu": 1}
        world = World(policy=policy(GPUS), demands=(demand(3, GPU=0.6),))
        world.running("gpu")
        assert launched(world.round()) == {"gpu": 1}

    def test_it_is_asked_for_once(self) -> None:
        world = World(policy=policy(GPUS), demands=(demand(3, GPU=0.6), demand(3, GPU=0.4), demand(1, GPU=1)))
        world.obey(world.round())
        for _ in range(6):
            made = world.round()
            assert (launched(made), released(made)) == ({}, {})
            world.tick(places=False)


def splits(parts: tuple[int, ...], count: int) -> bool:
    """Say whether so many nodes of two devices hold the parts."""
    return _split(parts, ((),) * count)


def _split(parts: tuple[int, ...], held: tuple[tuple[int, ...], ...]) -> bool:
    if not parts:
        return True
    first, rest = parts[0], parts[1:]
    for index in {one: n for n, one in enumerate(held)}.values():
        more = (*held[index], first)
        if devices_hold(more, 2) and _split(rest, (*held[:index], more, *held[index + 1 :])):
            return True
    return False


class TestGangs:
    def launched(self, strategy: GangStrategy, *demands: Demand, gpus: int = 2) -> dict[str, int]:
        world = World(policy=policy(kind("gpu", 32, gpus)), gangs=(gang(strategy, *demands),))
        return launched(world.round())

    @pytest.mark.parametrize(
        ("demands", "gpus", "holds"),
        [
            ((demand(3, GPU=0.6),), 2, False),
            ((demand(3, GPU=0.6),), 3, True),
            ((demand(2, GPU=0.6), demand(2, GPU=0.4)), 2, True),
            ((demand(2, GPU=0.6), demand(1, GPU=0.5)), 2, False),
            ((demand(1, GPU=1), demand(2, GPU=0.5)), 2, True),
            ((demand(1, GPU=0.6),), 1, True),
            ((demand(1, GPU=2), demand(1, GPU=0.1)), 2, False),
        ],
    )
    def test_a_strict_pack_takes_the_devices_that_its_shares_fill(
        self, demands: tuple[Demand, ...], gpus: int, holds: bool
    ) -> None:
        assert self.launched(GangStrategy.STRICT_PACK, *demands, gpus=gpus) == ({"gpu": 1} if holds else {})

    def test_a_pack_is_spread_where_one_node_does_not_hold_it(self) -> None:
        assert self.launched(GangStrategy.PACK, demand(3, GPU=0.6)) == {"gpu": 2}

    def test_a_strict_spread_of_shares(self) -> None:
        assert self.launched(GangStrategy.STRICT_SPREAD, demand(3, GPU=0.2)) == {"gpu": 3}


class TestRunningNodes:
    """A node of two GPUs on which 1.2 are used: Ray says 0.8 are free, and not that it is 0.4 on each."""

    def world(self, used: float = 1.2, asked: float = 0.6) -> tuple[World, str]:
        world = World(policy=policy(GPUS), demands=(demand(1, GPU=asked),))
        return world, world.running("gpu", used={"GPU": used})

    def launches(self, world: World, rounds: int) -> list[int]:
        return [sum(launched(world.round()).values()) for _ in range(rounds)]

    def test_the_sum_is_believed_until_two_more_reports_prove_it_wrong(self) -> None:
        world, _ = self.world()
        assert self.launches(world, SHARE_REPORTS + 2) == [0] * SHARE_REPORTS + [1, 1]

    def test_what_the_sum_does_not_hold_is_not_waited_for(self) -> None:
        world, _ = self.world(used=1.5)
        assert self.launches(world, 1) == [1]

    def test_and_asked_for_once(self) -> None:
        world, _ = self.world()
        total = 0
        for _ in range(10):
            made = world.round()
            total += sum(launched(made).values())
            assert released(made) == {}
            world.obey(made)
        assert total == 1

    def test_it_is_believed_anew_when_something_changes_there(self) -> None:
        world, one = self.world()
        assert self.launches(world, 3) == [0, 0, 1]
        world.change_node(one, available=Resources.of({"CPU": 32, "GPU": 0.9}))
        assert self.launches(world, 3) == [0, 0, 1]

    @pytest.mark.parametrize(("other", "count"), [(0.3, 1), (0.5, 1), (0.6, 2), (0.7, 2), (1, 2)])
    def test_more_than_what_is_doubted_is_doubted_with_it_and_less_is_not(
        self, other: float, count: int
    ) -> None:
        world = World(policy=policy(kind("gpu", 32, 1)), demands=(demand(1, GPU=0.6),))
        world.foreign(CPU=32, GPU=4, used={"GPU": 2.4})
        self.launches(world, 3)
        world.demands = (demand(1, GPU=0.6), demand(1, CPU=1, GPU=other))
        assert launched(world.round()) == {"gpu": count}

    def test_a_node_that_nothing_uses_is_known_and_not_doubted(self) -> None:
        world, _ = self.world()
        world.running("gpu")
        assert self.launches(world, 5) == [0] * 5

    def test_work_of_other_kinds_doubts_nothing(self) -> None:
        world, _ = self.world()
        world.demands = (demand(1, CPU=32),)
        assert self.launches(world, 5) == [0] * 5

    def test_where_nothing_waits_nothing_is_doubted(self) -> None:
        world, _ = self.world()
        self.launches(world, 2)
        world.demands = ()
        self.launches(world, 3)
        world.demands = (demand(1, GPU=0.6),)
        assert self.launches(world, 3) == [0, 0, 1]

    def test_other_work_does_not_wait_longer(self) -> None:
        world, _ = self.world()
        world.demands = (demand(1, GPU=0.6), demand(1, GPU=2))
        assert self.launches(world, 1) == [1]

    def test_two_that_are_half_free_each_are_no_room_for_more_than_half(self) -> None:
        """What is free in sum is a whole number here, and still no device is."""
        world, _ = self.world(used=1.0)
        assert self.launches(world, SHARE_REPORTS + 1) == [0] * SHARE_REPORTS + [1]

    def test_nor_for_a_whole_one(self) -> None:
        world, _ = self.world(used=0.8, asked=1.0)
        assert self.launches(world, SHARE_REPORTS + 2) == [0] * SHARE_REPORTS + [1, 1]

    @pytest.mark.parametrize(("used", "asked"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.3)])
    def test_whole_or_not_a_sum_is_doubted_where_anything_is_used(self, used: float, asked: float) -> None:
        """1.0 free of two may be 0.6 and 0.4, which is no room for a whole one."""
        world, _ = self.world(used=used, asked=asked)
        assert self.launches(world, SHARE_REPORTS + 2) == [0] * SHARE_REPORTS + [1, 1]

    @pytest.mark.parametrize("strategy", GangStrategy)
    def test_a_gang_waits_no_longer_than_other_work(self, strategy: GangStrategy) -> None:
        world, _ = self.world()
        world.demands, world.gangs = (), (gang(strategy, demand(1, GPU=0.6)),)
        assert self.launches(world, SHARE_REPORTS + 1) == [0] * SHARE_REPORTS + [1]

    def test_what_else_changes_there_does_not_matter(self) -> None:
        """Object store memory changes with every report; what it says of devices is the same."""
        world, one = self.world()
        found = []
        for report in range(SHARE_REPORTS + 2):
            world.change_node(one, available=Resources.of({"CPU": 32 - report, "GPU": 0.8}))
            found += self.launches(world, 1)
        assert found == [0] * SHARE_REPORTS + [1, 1]

    def test_devices_are_known_where_only_other_things_are_used(self) -> None:
        """Two GPUs that nothing uses are two GPUs: no room for three shares of 0.6."""
        world, one = self.world(asked=0.6)
        world.demands = (demand(3, GPU=0.6),)
        world.change_node(one, available=Resources.of({"CPU": 16, "GPU": 2}))
        assert self.launches(world, 1) == [1]

    def test_request_resources_counts_devices_one_by_one(self) -> None:
        """Two nodes of two hold three shares of 0.6, one does not: neither leaves."""
        world = World(policy=policy(GPUS), constraint=(demand(3, GPU=0.6),))
        for _ in range(2):
            world.running("gpu", idle_s=1000)
        made = world.rounds(5)
        assert (launched(made), drained(made)) == ({}, {})

    def test_a_foreign_node_is_doubted_like_any(self) -> None:
        world = World(policy=policy(GPUS), demands=(demand(1, GPU=0.6),))
        world.foreign(CPU=8, GPU=2, used={"GPU": 1.2})
        assert self.launches(world, 3) == [0, 0, 1]

    def test_nothing_is_launched_where_ray_places_it(self) -> None:
        world, one = self.world()
        self.launches(world, 2)
        world.demands = ()
        world.change_node(one, available=Resources.of({"CPU": 32, "GPU": 0.2}))
        assert self.launches(world, 5) == [0] * 5

    def test_what_a_lease_ends_is_replaced_by_as_many_devices(self) -> None:
        world, one = self.world()
        world.demands = ()
        world.change_row(one, expires_at_s=world.now_s + 50)
        made = world.round()
        assert launched(made) == {"gpu": 1}
        assert {each.reason.why for each in made.actions if each.reason.why is Why.REPLACEMENT}


def test_a_label_that_the_node_lacks_makes_no_doubt() -> None:
    """It was never believed to hold it."""
    world = World(policy=policy(replace(GPUS, labels={"zone": "b"})), demands=(demand(1, "zone=b", GPU=0.6),))
    world.foreign(CPU=8, GPU=2, used={"GPU": 1.2})
    assert launched(world.round()) == {"gpu": 1}
    world.policy = policy(GPUS)
    for _ in range(4):
        world.round()
    world.demands = (*world.demands, demand(1, GPU=0.6))
    assert [sum(launched(world.round()).values()) for _ in range(3)] == [0, 0, 1]


class TestGangsOnOneNode:
    """A gang on one node takes of its devices what its bundles take, not whole ones."""

    @pytest.mark.parametrize("strategy", [GangStrategy.PACK, GangStrategy.STRICT_PACK])
    @pytest.mark.parametrize(
        ("parts", "beside", "nodes"),
        [
            ([(2, 0.6)], (2, 0.3), 1),
            ([(2, 0.6)], (2, 0.4), 1),
            ([(2, 0.6)], (1, 0.5), 2),
            ([(1, 0.5), (1, 0.3)], (1, 1.0), 1),
            ([(1, 0.5), (1, 0.6)], (1, 1.0), 2),
        ],
    )
    def test_what_it_leaves_is_room_for_others(
        self, strategy: GangStrategy, parts: list[tuple[int, float]], beside: tuple[int, float], nodes: int
    ) -> None:
        demands = [demand(count, CPU=1, GPU=share) for count, share in parts]
        world = World(policy=policy(GPUS), gangs=(gang(strategy, *demands),))
        world.demands = (demand(beside[0], GPU=beside[1]),)
        made = world.round()
        assert launched(made) == {"gpu": nodes}
        world.obey(made)
        assert world.rounds(3).actions == ()


@pytest.mark.parametrize(
    ("devices", "parts", "whole", "left"),
    [
        ((SCALE, SCALE), [(6000, 2)], 2 * SCALE, (4000, 4000)),
        ((5000, SCALE), [(5000, 2)], SCALE, (5000,)),
        ((SCALE, SCALE), [(SCALE, 1), (3000, 1)], 2 * SCALE, (7000,)),
        ((4000, SCALE), [(6000, 2)], SCALE, (4000,)),
    ],
)
def test_parts_are_taken_or_else_the_whole(
    devices: Devices, parts: list[tuple[int, int]], whole: int, left: Devices
) -> None:
    assert take_parts(devices, parts, whole, 1) == left
