"""The lines that say whether the targets are met."""

from __future__ import annotations

import pytest

from benchmarks.planner_cases.table import of_case, of_curve, targets

FIGURES: dict[str, object] = {
    "title": "a case",
    "ours_s": 0.1,
    "ray_s": 20.0,
    "ratio": 200.0,
    "ratio_at_least": None,
    "bound": 100.0,
    "peak_mb": 50.0,
    "ours_cost": 101.0,
    "ours_unmet": 0,
    "ours_words": 0,
    "ours_unplaced": 0,
    "ours_lacking": None,
    "ray_cost": 120.0,
    "ray_unmet": 0,
    "ray_words": 0,
    "ray_unplaced": 7,
    "ray_lacking": 0.0,
    "over_bound": 0.01,
    "ray_over_bound": 0.2,
    "ray_note": "",
    "ours_note": "failed with status 1",
    "first_s": 0.2,
    "convert_s": 0.03,
    "fold_s": 0.01,
    "plan_s": 0.06,
}


def verdicts(name: str, **changed: object) -> dict[str, str]:
    lines = targets({name: FIGURES | changed}).splitlines()
    return {
        text.partition(": ")[2].rpartition(" (")[0]: verdict
        for verdict, text in (x.split("  ", 1) for x in lines)
    }


def test_what_is_met() -> None:
    assert verdicts("B") == {
        "at least 100 times as quick as Ray": "pass",
        "no dearer than Ray": "pass",
        "no more unmet than Ray": "pass",
        "within 3% of the bound": "pass",
    }


@pytest.mark.parametrize(
    ("name", "changed", "failed"),
    [
        ("C", {"ratio": 99.0}, "at least 100 times as quick as Ray"),
        ("A", {"ours_cost": 121.0}, "no dearer than Ray"),
        ("A", {"ours_unmet": 1}, "no more unmet than Ray"),
        ("D", {"over_bound": 0.06}, "within 5% of the bound"),
        ("F", {"ours_s": 0.6}, "ours_s below 0.5"),
        ("F", {"peak_mb": 401.0}, "peak below 400 MB"),
        ("H", {"plan_s": 0.03}, "plan_s below 0.02"),
        ("H", {"ours_s": 0.3}, "ours_s below 0.2"),
    ],
)
def test_what_is_not(name: str, changed: dict[str, object], failed: str) -> None:
    assert verdicts(name, **changed)[failed] == "FAIL"


def test_costs_are_compared_only_where_both_serve_the_same() -> None:
    assert "no dearer than Ray" not in verdicts("A", ours_unmet=1)


def test_without_ray_nothing_is_said_of_it() -> None:
    missing = {
        f"ray_{key}": None for key in ("s", "cost", "unmet", "words", "unplaced", "lacking", "over_bound")
    }
    alone = FIGURES | missing | {"ratio": None, "ray_note": "did not finish within 120 s"}
    assert "did not finish within 120 s" in of_case("F", alone)
    assert "Ray" not in targets({"A": alone})


def test_a_planner_that_fails_meets_nothing() -> None:
    missing = {f"ours_{key}": None for key in ("s", "cost", "unmet", "words", "unplaced", "lacking")}
    parts = dict.fromkeys(("ratio", "over_bound", "peak_mb", "first_s", "convert_s", "fold_s", "plan_s"))
    assert "no plan" in of_case("B", FIGURES | missing | parts)
    assert set(verdicts("B", **missing, **parts).values()) == {"FAIL"}


def test_a_ray_that_was_ended_early_still_tells_a_ratio() -> None:
    ended = {"ratio": None, "ratio_at_least": 300.0}
    assert verdicts("B", **ended)["at least 100 times as quick as Ray"] == "pass"
    assert "at least 100 times as quick as Ray" not in verdicts("B", **(ended | {"ratio_at_least": 52.0}))


def test_a_doubt_is_shown() -> None:
    assert "says 0, judge leaves 7, surely 0" in of_case("B", FIGURES)


def test_the_curve_says_the_cost_of_one() -> None:
    row = {"nodes": 1_000, "states": 200, "shapes": 20, "ours_s": 0.1, "s_per_node_shape": 5e-6}
    assert of_curve([row | {"convert_s": 0.03, "fold_s": 0.01, "plan_s": 0.06}]).endswith("5.000")
