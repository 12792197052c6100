"""The figures as text for people, and whether they meet the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
RATIO = 100
SHARE_OVER_BOUND = {"A": 0.03, "B": 0.03, "C": 0.03, "D": 0.05}


def of_case(name: str, one: Figures) -> str:
    """Return three lines: what it is, ours, Ray's."""
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
    return f"{name}  {one['title']}{ratio}{bound}\n{ours}\n{ray}"


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
    """Return a line for each target that these cases can tell."""
    lines = [line for name, one in found.items() for line in _of_case(name, one)]
    return "\n".join(f"{'pass' if met else 'FAIL'}  {text}" for text, met in lines)


def _of_case(name: str, one: Figures) -> list[tuple[str, bool]]:
    lines: list[tuple[str, bool]] = []

    def judge(text: str, value: float | None, met: Callable[[float], bool]) -> None:
        if value is not None:
            lines.append((f"{name}: {text} ({value:.4g})", met(value)))

    if name in {"B", "C"}:
        # What is known to be at least less than that says nothing.
        least = one["ratio_at_least"] if (one["ratio_at_least"] or 0) >= RATIO else None
        judge(f"at least {RATIO} times as quick as Ray", one["ratio"] or least, lambda ratio: ratio >= RATIO)
    if name == "F":
        judge("ours_s below 0.5", one["ours_s"], lambda s: s < 0.5)
        judge("peak below 400 MB", one["peak_mb"], lambda mb: mb < 400)
    if name == "H":
        judge("plan_s below 0.02", one["plan_s"], lambda s: s < 0.02)
        judge("ours_s below 0.2", one["ours_s"], lambda s: s < 0.2)
    if one["ours_cost"] is None:
        return [(f"{name}: a plan in time (0)", False)]
    if one["ray_cost"] is not None and one["ray_unmet"] == one["ours_unmet"]:
        judge("no dearer than Ray", one["ours_cost"] - one["ray_cost"], lambda more: more <= 1e-9)
    if one["ray_unmet"] is not None:
        judge("no more unmet than Ray", one["ours_unmet"] - one["ray_unmet"], lambda more: more <= 0)
    if name in SHARE_OVER_BOUND and one["ours_unmet"] == 0:
        most = SHARE_OVER_BOUND[name]
        judge(f"within {most:.0%} of the bound", one["over_bound"], lambda share: share <= most)
    return lines


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
