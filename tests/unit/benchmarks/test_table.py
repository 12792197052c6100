"""The lines that say whether the targets are met."""

from __future__ import annotations

import pytest

from benchmarks.planner_cases.table import NOT_ASKED, all_met, of_case, of_curve, targets

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
    "bound_note": "",
    "adapter_s": None,
    "adapter_note": NOT_ASKED,
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
        ("F", {"peak_mb": 401.0}, "peak_mb below 400"),
        ("H", {"plan_s": 0.03}, "plan_s below 0.02"),
        ("H", {"ours_s": 0.3}, "ours_s below 0.2"),
    ],
)
def test_what_is_not(name: str, changed: dict[str, object], failed: str) -> None:
    assert verdicts(name, **changed)[failed] == "FAIL"
    assert not all_met({name: FIGURES | changed})


@pytest.mark.parametrize(
    ("name", "missing", "failed"),
    [
        ("B", "ratio", "at least 100 times as quick as Ray"),
        ("A", "ray_cost", "no dearer than Ray"),
        ("A", "ray_unmet", "no more unmet than Ray"),
        ("D", "over_bound", "within 5% of the bound"),
        ("F", "ours_s", "ours_s below 0.5"),
        ("F", "peak_mb", "peak_mb below 400"),
        ("H", "plan_s", "plan_s below 0.02"),
    ],
)
def test_what_should_have_been_measured_and_was_not_is_missed(name: str, missing: str, failed: str) -> None:
    assert f"FAIL  {name}: {failed} (not measured)" in targets({name: FIGURES | {missing: None}})


def test_all_is_met_where_nothing_is_missed() -> None:
    assert all_met({"A": FIGURES, "B": FIGURES})
    assert not all_met({"A": FIGURES, "B": FIGURES | {"ratio": 99.0}})


def test_a_plan_that_leaves_something_out_is_not_near_the_bound() -> None:
    assert "FAIL  A: within 3% of the bound (5 unmet)" in targets({"A": FIGURES | {"ours_unmet": 5}})


def test_costs_are_compared_only_where_both_serve_the_same() -> None:
    assert "no dearer than Ray" not in verdicts("A", ours_unmet=1)


RAY_MISSING = {
    f"ray_{key}": None for key in ("s", "cost", "unmet", "words", "unplaced", "lacking", "over_bound")
} | {"ratio": None}
LATE = "did not finish within 120 s"


def test_what_was_not_asked_for_has_no_target() -> None:
    alone = FIGURES | RAY_MISSING | {"ray_note": NOT_ASKED}
    assert "Ray" not in targets({"B": alone})
    assert "bound" not in targets({"B": FIGURES | {"over_bound": None, "bound_note": NOT_ASKED}})


def test_only_of_f_ray_may_say_nothing() -> None:
    late = FIGURES | RAY_MISSING | {"ray_note": LATE}
    assert LATE in of_case("F", late)
    assert "Ray" not in targets({"F": late})
    assert "FAIL  A: no dearer than Ray (not measured)" in targets({"A": late})


def test_the_adapter_is_shown_where_it_was_asked_for() -> None:
    assert "adapter" not in of_case("A", FIGURES)
    assert "adapter   0.070 s" in of_case("A", FIGURES | {"adapter_s": 0.07, "adapter_note": ""})


def test_a_planner_that_fails_meets_nothing() -> None:
    missing = {f"ours_{key}": None for key in ("s", "cost", "unmet", "words", "unplaced", "lacking")}
    parts = dict.fromkeys(("ratio", "over_bound", "peak_mb", "first_s", "convert_s", "fold_s", "plan_s"))
    assert "no plan" in of_case("B", FIGURES | missing | parts)
    assert set(verdicts("B", **missing, **parts).values()) == {"FAIL"}


def test_a_ray_that_was_ended_early_still_tells_a_ratio() -> None:
    ended = {"ratio": None, "ratio_at_least": 300.0}
    assert verdicts("B", **ended)["at least 100 times as quick as Ray"] == "pass"
    less = ended | {"ratio_at_least": 52.0}
    assert verdicts("B", **less)["at least 100 times as quick as Ray"] == "FAIL"


def test_a_doubt_is_shown() -> None:
    assert "says 0, judge leaves 7, surely 0" in of_case("B", FIGURES)


def test_the_curve_says_the_cost_of_one() -> None:
    row = {"nodes": 1_000, "states": 200, "shapes": 20, "ours_s": 0.1, "s_per_node_shape": 5e-6}
    assert of_curve([row | {"convert_s": 0.03, "fold_s": 0.01, "plan_s": 0.06}]).endswith("5.000")
