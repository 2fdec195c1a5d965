"""What a search for settings found, for people and for machines."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from nightrec.report.evaluation import plain, table

if TYPE_CHECKING:
    from nightrec.evaluation.tuning import Tuned

_SHOWN = 10


def render(found: Tuned, verdict: str, file: Path) -> RenderableType:
    """The best trials, who won and why, and where that is written."""
    rows = table("", "trial", f"NDCG@{found.k}", "differs from the deployment's own in")
    for one in found.trials[:_SHOWN]:
        settings = ", ".join(f"{name} {value:.4g}" for name, value in one.settings.items())
        rows.add_row(str(one.number), f"{one.ndcg:.4f}", settings or "nothing")
    people = f"{found.gain.users:,} times a user in the {found.days} days after {len(found.cuts)} cuts"
    about = f"{len(found.trials)} trials, each judged on {people}."
    return Group(Text(about), rows, "", Text(verdict), Text(f"Written: {file}; a night takes it as its --config."))


def as_dict(found: Tuned, file: Path) -> dict[str, Any]:
    """Everything, for machines: dates as ISO text."""
    machine: dict[str, Any] = plain(asdict(found)) | {"file": str(file)}
    return machine
