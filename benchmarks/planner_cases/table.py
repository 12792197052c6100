"""The figures as text for people, and whether they meet the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
NOT_ASKED = "not asked"
"""The note on what was left out by an option: its targets are left out too."""

RATIO = 100
SHARE_OVER_BOUND = {"A": 0.03, "B": 0.03, "C": 0.03, "D": 0.05}


def of_case(name: str, one: Figures) -> str:
    """Return three lines: what it is, ours, Ray's. A fourth where the adapter was asked for."""
    ray = f"  {'ray':5}{one['ray_note']}"
    if one["ray_s"] is not None:
        note = f"  ({one['ray_note']})" if one["ray_note"] else ""
        ray = f"  {'ray':5}{_seconds(one['ray_s'])}{_outcome('ray', one)}{note}"
    parts = ", ".join(
        f"{key[:-2]} {_seconds(one[key]).strip()}" for key in ("convert_s", "fold_s", "plan_s", "first_s")
    )
    peak = f"  peak {_number(one['peak_mb'], 0)} MB"
    ours = f"  {'ours':5}{_seconds(one['ours_s'])}{_outcome('ours', one)}{peak}  ({parts})"
    ratio = f"  ratio {one['ratio']:,.0f}" if one["ratio"] else ""
    if one["ratio_at_least"]:
        ratio = f"  ratio at least {one['ratio_at_least']:,.0f}"
    bound = f"  bound {one['bound']:,.2f}" if one["bound"] is not None else ""
    lines = [f"{name}  {one['title']}{ratio}{bound}", ours, ray]
    if one["adapter_note"] != NOT_ASKED:
        lines.append(f"  adapter{_seconds(one['adapter_s'])}  {one['adapter_note']}".rstrip())
    return "\n".join(lines)


def _outcome(who: str, one: Figures) -> str:
    if one[f"{who}_cost"] is None:
        return f"  no plan: {one[f'{who}_note']}"
    over = one["over_bound" if who == "ours" else "ray_over_bound"]
    above = f" ({over:+.1%})" if over is not None else ""
    words, unplaced, lacking = (one[f"{who}_{key}"] for key in ("words", "unplaced", "lacking"))
    proof = f", surely {lacking:.0f}" if lacking is not None else ""
    doubt = "" if words == unplaced else f" (says {words}, judge leaves {unplaced}{proof})"
    return f"  cost {one[f'{who}_cost']:,.2f}{above}  unmet {one[f'{who}_unmet']}{doubt}"


def _seconds(value: float | None) -> str:
    return f"{'–':>10}" if value is None else f"{value:>8.3f} s"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def targets(found: Mapping[str, Figures]) -> str:
    """Return a line for each target of these cases. What should have been measured and was not is missed."""
    return "\n".join(f"{'pass' if met else 'FAIL'}  {text}" for text, met in _lines(found))


def all_met(found: Mapping[str, Figures]) -> bool:
    return all(met for _, met in _lines(found))


def _lines(found: Mapping[str, Figures]) -> list[tuple[str, bool]]:
    return [
        (f"{name}: {text} ({said})", met)
        for name, one in found.items()
        for text, said, met in _of_case(name, one)
    ]


Line = tuple[str, str, bool]
"""A target, what was found, whether it is met."""


def _of_case(name: str, one: Figures) -> list[Line]:
    if one["ours_cost"] is None:
        return [("a plan", one["ours_note"], False)]
    lines = []
    if name == "F":
        lines += [_below("ours_s", 0.5, one["ours_s"]), _below("peak_mb", 400, one["peak_mb"])]
    if name == "H":
        lines += [_below("plan_s", 0.02, one["plan_s"]), _below("ours_s", 0.2, one["ours_s"])]
    # F is too large for Ray.
    if one["ray_note"] != NOT_ASKED and (name != "F" or one["ray_cost"] is not None):
        lines += _beside_ray(name, one)
    if name in SHARE_OVER_BOUND and one["bound_note"] != NOT_ASKED:
        most = SHARE_OVER_BOUND[name]
        line = _judged(f"within {most:.0%} of the bound", one["over_bound"], lambda share: share <= most)
        # A plan that leaves something out may cost less than the bound.
        lines.append(line if one["ours_unmet"] == 0 else (line[0], f"{one['ours_unmet']} unmet", False))
    return lines


def _beside_ray(name: str, one: Figures) -> list[Line]:
    lines = []
    if name in {"B", "C"}:
        # What is known to be at least less than that says nothing.
        least = one["ratio_at_least"] if (one["ratio_at_least"] or 0) >= RATIO else None
        ratio = one["ratio"] or least
        lines.append(_judged(f"at least {RATIO} times as quick as Ray", ratio, lambda found: found >= RATIO))
    more_unmet = one["ray_unmet"] if one["ray_unmet"] is None else one["ours_unmet"] - one["ray_unmet"]
    lines.append(_judged("no more unmet than Ray", more_unmet, lambda more: more <= 0))
    if not more_unmet:
        dearer = one["ray_cost"] if one["ray_cost"] is None else one["ours_cost"] - one["ray_cost"]
        lines.append(_judged("no dearer than Ray", dearer, lambda more: more <= 1e-9))
    return lines


def _below(key: str, most: float, value: float | None) -> Line:
    return _judged(f"{key} below {most:g}", value, lambda found: found < most)


def _judged(text: str, value: float | None, met: Callable[[float], bool]) -> Line:
    return (text, "not measured", False) if value is None else (text, f"{value:.4g}", met(value))


def of_curve(rows: Sequence[Figures]) -> str:
    lines = [
        f"{'nodes':>7} {'states':>7} {'shapes':>6} {'seconds':>10} "
        f"{'convert':>9} {'fold':>9} {'plan':>9}  µs per node×shape"
    ]
    for row in rows:
        parts = " ".join(f"{_number(row[key], 3):>9}" for key in ("convert_s", "fold_s", "plan_s"))
        per = row["s_per_node_shape"]
        each = "–" if per is None else f"{per * 1e6:.3f}"
        head = f"{row['nodes']:>7} {row['states']:>7} {row['shapes']:>6} {_number(row['ours_s'], 3):>10}"
        lines.append(f"{head} {parts}  {each}")
    return "\n".join(lines)
