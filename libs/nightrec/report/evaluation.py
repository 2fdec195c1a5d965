"""What an evaluation found, for people: the pooled figures beside the baselines', then each cut in a line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from nightrec.evaluation.protocol import Judged
    from nightrec.metrics.bootstrap import Interval


_COLUMNS = {
    "ndcg": "NDCG", "recall": "Recall", "hit": "HR", "average_precision": "MAP", "debiased_ndcg": "debiased",
}  # fmt: skip


def render(judged: Sequence[Judged], ours: str, k: int, days: int) -> RenderableType:
    """A table of all methods over all cuts, best NDCG first; then ours and the best baseline at each cut."""
    pooled = sorted((one for one in judged if one.cut is None), key=lambda one: -one.figures["ndcg"].mean)
    if not pooled:
        return Text("Nobody did anything after the cuts that could be compared with a list.")
    table = Table(box=None, header_style="bold", title_justify="left")
    table.add_column(f"lists of {k}")
    for name in (*_COLUMNS.values(), "coverage"):
        table.add_column(name, justify="right")
    table.add_column(f"{ours} has more NDCG by (95 %)", justify="right")
    for one in pooled:
        figures = (f"{one.figures[name].mean:.3f}" for name in _COLUMNS)
        gain = "" if one.method == ours else f"{one.gain.mean:+.3f} ({one.gain.low:+.3f} to {one.gain.high:+.3f})"
        name = f"{one.method} ({one.setting})" if one.setting else one.method
        table.add_row(name, *figures, f"{one.coverage:.3f}", gain, style="bold" if one.method == ours else "")
    lines = [Text(_cut_line([one for one in judged if one.cut == cut], ours)) for cut in cuts(judged)]
    users = pooled[0].figures["ndcg"].users
    about = f"What {users:,} users did in the {days} days after {len(cuts(judged))} cuts, over the whole catalogue:"
    return Group(Text(about), "", table, "", *lines)


def cuts(judged: Sequence[Judged]) -> list[date]:
    """The cuts, in order."""
    return sorted({one.cut for one in judged if one.cut is not None})


def _cut_line(judged: Sequence[Judged], ours: str) -> str:
    """One cut in a sentence."""
    own = next(one for one in judged if one.method == ours)
    best = max((one for one in judged if one.method != ours), key=lambda one: one.figures["ndcg"].mean)
    mine, theirs, gain = own.figures["ndcg"], best.figures["ndcg"], best.gain
    return (
        f"{own.cut}: NDCG {mine.mean:.3f} for {mine.users:,} users; the best baseline there, {best.method}, "
        f"{theirs.mean:.3f} ({gain.mean:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})"
    )


def as_dict(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Everything, for machines."""

    def plain(interval: Interval) -> dict[str, float]:
        return {"mean": interval.mean, "low": interval.low, "high": interval.high, "users": interval.users}

    return [
        {
            "cut": one.cut.isoformat() if one.cut else None,
            "method": one.method,
            "setting": one.setting,
            "coverage": one.coverage,
            "gain": plain(one.gain),
            **{name: plain(figure) for name, figure in one.figures.items()},
        }
        for one in judged
    ]
