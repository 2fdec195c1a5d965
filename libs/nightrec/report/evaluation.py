"""What an evaluation found, for people and for machines: methods, cuts, slices, candidates, probabilities."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from nightrec.evaluation.findings import Findings, Judged
    from nightrec.metrics.bootstrap import Interval

_COLUMNS = {
    "ndcg": "NDCG", "recall": "Recall", "recall_100": "@100", "precision": "precision", "f1": "F1", "hit": "HR",
    "average_precision": "MAP", "debiased_ndcg": "debiased", "novelty": "novelty", "diversity": "diversity",
}  # fmt: skip


def render(found: Findings, html: Path) -> RenderableType:
    """All methods over all cuts, best NDCG first; ours and the best baseline at each cut and in each slice; what the
    candidate sources reach; how true the probabilities are. `html` is where the same stands with charts."""
    pooled = ranked(found, None)
    if not pooled:
        return Text("Nobody did anything after the cuts that could be compared with a list.")
    users = pooled[0].figures["ndcg"]
    people = f"{users.users:,} times a user" if users else "users"
    about = f"What {people} did in the {found.days} days after {len(found.cuts)} cuts, over the whole catalogue."
    parts: list[RenderableType] = [
        Text(f"{about} Lists of {found.k}; 95 % intervals by users."), "", _methods(found, pooled), "",
        *(Text(_cut_line(found, cut)) for cut in found.cuts), "", _slices(found), "", _reached(found),
        "", Text(calibration_line(found)), *map(Text, rating_lines(found)), Text(f"With charts: {html}"),
    ]  # fmt: skip
    return Group(*parts)


def ranked(found: Findings, cut: date | None) -> list[Judged]:
    """The methods of a cut (None: pooled), best NDCG first, ties in their order."""
    return sorted((one for one in found.judged if one.cut == cut), key=lambda one: -_mean(one.figures["ndcg"]))


def label(one: Judged) -> str:
    """A method with its setting."""
    return f"{one.method} ({one.setting})" if one.setting else one.method


def _mean(interval: Interval | None) -> float:
    return interval.mean if interval else 0.0


def table(title: str, *columns: str) -> Table:
    """An empty table: names to the left, figures to the right."""
    rows = Table(box=None, header_style="bold", title=title, title_justify="left")
    for place, column in enumerate(columns):
        rows.add_column(column, justify="right" if place else "left", no_wrap=bool(place))
    return rows


def spread(gain: Interval | None) -> str:
    """A difference with its interval; '' for none."""
    return f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" if gain else ""


def _methods(found: Findings, pooled: list[Judged]) -> Table:
    rows = table("", "method", *_COLUMNS.values(), "coverage", f"{found.ours} has more NDCG by")
    for one in pooled:
        figures = [f"{value.mean:.3f}" if (value := one.figures[name]) else "" for name in _COLUMNS]
        is_ours = one.method == found.ours
        gain = "" if is_ours else spread(one.gain)
        rows.add_row(label(one), *figures, f"{one.coverage:.3f}", gain, style="bold" if is_ours else "")
    return rows


def _cut_line(found: Findings, cut: date) -> str:
    """One cut in a sentence."""
    own = next((one for one in found.judged if one.cut == cut and one.method == found.ours), None)
    best = next((one for one in ranked(found, cut) if one.method != found.ours), None)
    mine = own.figures["ndcg"] if own else None
    if not mine or not best:
        return f"{cut}: nobody did anything after it that could be compared with a list."
    return (
        f"{cut}: NDCG {mine.mean:.3f} for {mine.users:,} users; the best baseline there, {label(best)}, "
        f"{_mean(best.figures['ndcg']):.3f}: {spread(best.gain)}"
    )


def _slices(found: Findings) -> Table:
    pooled = [one for one in found.slices if one.cut is None]
    best = pooled[0].best if pooled else "the best baseline"
    rows = table("", "slice", "users", "figure", found.ours, best, "more by", "than segment popularity by")
    for one in pooled:
        figures = (f"{value.mean:.3f}" for value in (one.ours, one.theirs))
        figure = f"{one.figure}@{one.depth}"
        rows.add_row(one.name, f"{one.ours.users:,}", figure, *figures, spread(one.gain), spread(one.over_segment))
    return rows


def _reached(found: Findings) -> Table:
    """Recall of each source by depth, and what it took; the union's last, which took what all of them took."""
    pooled = [one for one in found.reached if one.cut is None]
    depths = sorted({one.depth for one in pooled if one.source != "oracle"})
    rows = table("", "candidates of", *(f"recall@{depth}" for depth in depths), "seconds")
    costs = {**found.costs, "union": sum(found.costs.values())}
    means = {(one.source, one.depth): one.mean for one in pooled}
    for source in dict.fromkeys(one.source for one in pooled if one.source != "oracle"):
        cost = f"{costs[source]:.1f}" if source in costs else ""
        rows.add_row(source, *(f"{means[source, depth]:.3f}" for depth in depths), cost)
    for one in pooled:
        if one.source == "oracle":
            rows.add_row(f"NDCG@{one.depth} of the union in the best order", f"{one.mean:.3f}")
    return rows


def calibration_line(found: Findings) -> str:
    """How true the ranker's probabilities were over all cuts, in a sentence."""
    pooled = next((one for one in found.calibrated if one.cut is None), None)
    if not pooled or not pooled.rows:
        return "No list was ordered by the ranker: no probabilities to compare."
    return (
        f"Of {pooled.rows:,} items listed for known users the ranker expected {pooled.expected:.2%} to be acted on; "
        f"{pooled.seen:.2%} were. Expected calibration error {pooled.error:.4f}, log loss {pooled.log_loss:.4f}."
    )


def rating_lines(found: Findings) -> list[str]:
    """How far predicted ratings were off over all cuts, a sentence for each that predicts any."""
    return [
        f"Of {one.rows:,} ratings given after the cuts those predicted by the {one.predicted_by} were off by "
        f"{one.error:.3f} (root mean squared error)."
        for one in found.rated
        if one.cut is None
    ]


def as_dict(found: Findings) -> dict[str, Any]:
    """Everything, for machines: dates as ISO text."""
    machine: dict[str, Any] = plain(asdict(found))
    return machine


def plain(value: Any) -> Any:
    """A value as JSON has it: dates as ISO text."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.isoformat() if isinstance(value, date) else value
