"""What an ablation found, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from nightrec.report.evaluation import plain, spread, table

if TYPE_CHECKING:
    from nightrec.evaluation.ablation import Ablation


def render(found: Ablation) -> RenderableType:
    """The parts, kind by kind, those worth most first."""
    if not found.whole:
        return Text("Nobody did anything after the cuts that could be compared with a list.")
    whole = found.whole
    about = (
        f"Everything: NDCG@{found.k} {whole.mean:.3f} ({whole.low:.3f} to {whole.high:.3f}), {whole.users:,} times a "
        f"user in the {found.days} days after {len(found.cuts)} cuts; paired differences, 95 % intervals by users."
    )
    tables: list[RenderableType] = []
    for kind in dict.fromkeys(part.kind for part in found.parts):
        rows = table(kind, kind, "NDCG", "everything has more by", "seconds")
        for part in sorted((part for part in found.parts if part.kind == kind), key=lambda part: -part.worth.mean):
            rows.add_row(part.name, f"{part.ndcg.mean:.3f}", spread(part.worth), f"{part.seconds:.0f}")
        tables += ["", rows]
    for part in found.parts:
        rows = table("", "slice", "users", "figure", "everything", part.name, "everything has more by")
        for one in part.items:
            means = (f"{figure.mean:.3f}" for figure in (one.ours, one.theirs))
            rows.add_row(one.name, f"{one.ours.users:,}", f"{one.figure}@{one.depth}", *means, spread(one.gain))
        tables += ["", rows] if part.items else []
    return Group(Text(about), *tables)


def markdown(logs: Mapping[str, Mapping[str, Any]]) -> str:
    """What each part is worth, as a table for each log by name, from what `as_dict` gave."""
    told = []
    for name, found in logs.items():
        whole, k = found["whole"], found["k"]
        about = (
            f"**{name}**: {found['days']} days after each of {', '.join(found['cuts'])}; everything together has "
            f"NDCG@{k} {whole['mean']:.3f} for {whole['users']:,} users."
        )
        lines = [f"| part | NDCG@{k} | everything has more by | seconds a cut |", "|---|---|---|---|"]
        for part in found["parts"]:
            gain = _spread(part["worth"])
            seconds = part["seconds"] / len(found["cuts"])
            lines.append(f"| {part['name']} | {part['ndcg']['mean']:.3f} | {gain} | {seconds:.0f} |")
        for part in found["parts"]:
            lines += _items(part)
        told.append("\n".join([about, "", *lines]))
    return "\n\n".join(told) or "Not measured yet."


def _spread(gain: Mapping[str, float]) -> str:
    """A difference with its interval."""
    return f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def _items(part: Mapping[str, Any]) -> list[str]:
    """The slices of items of a part that has some, as a table."""
    if not part["items"]:
        return []
    lines = ["", f"| slice | users | figure | everything | {part['name']} | everything has more by |"]
    lines.append("|---|---|---|---|---|---|")
    for one in part["items"]:
        figure = f"{one['figure']}@{one['depth']}" if "depth" in one else one["figure"]
        means = " | ".join(f"{one[whose]['mean']:.3f}" for whose in ("ours", "theirs"))
        lines.append(f"| {one['name']} | {one['ours']['users']:,} | {figure} | {means} | {_spread(one['gain'])} |")
    return lines


def as_dict(found: Ablation) -> dict[str, Any]:
    """Everything, for machines: dates as ISO text."""
    machine: dict[str, Any] = plain(asdict(found))
    return machine
