"""What the picture of a training shows, and that it can be drawn where matplotlib is."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.cli.train_demo import picture
from heliostat.cli.train_demo.figures import Record
from tests.unit.cli.train_demo import facts

PNG = b"\x89PNG\r\n\x1a\n"


def test_it_shows_members_throughput_and_loss_over_time() -> None:
    size, speed, loss = picture.panels(facts.record())
    assert size.values == (1, 1, 2, 2, 3, 3, 2, 2)
    assert size.times_s == speed.times_s == loss.times_s
    assert size.times_s == pytest.approx((0.0, 1.0, 2.0, 2.5, 3.0, 3.3, 4.0, 4.5))
    assert speed.values[:2] == (50.0, 75.0)
    assert loss.values[0] == 2.0
    assert [one.steps for one in (size, speed, loss)] == [True, False, False]


def test_joins_and_leaves_during_the_training_are_marked() -> None:
    found = [(round(one.at_s, 1), one.kind, one.text) for one in picture.marks(facts.record())]
    assert found == [(1.5, "join", "joined"), (2.7, "join", "joined"), (3.4, "leave", "left: drained")]


@pytest.mark.parametrize(
    ("values", "width", "found"),
    [([], 3, ()), ([1.0, 3.0], 1, (1.0, 3.0)), ([1.0, 3.0, 5.0, 7.0], 2, (1.0, 2.0, 4.0, 6.0))],
)
def test_values_are_smoothed_over_those_before(
    values: list[float], width: int, found: tuple[float, ...]
) -> None:
    assert picture.smooth(values, width) == found


@pytest.mark.parametrize("record", [facts.record(), Record()], ids=["a training", "nothing"])
def test_it_is_drawn_as_png(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `train` brings it")
    picture.draw(record, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)
