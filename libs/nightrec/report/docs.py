"""What the README says of stages and tables, and the shipped reference of every setting, from the values themselves.

python -m nightrec.report.docs --write     (or --check: exit code 1 where a file is stale)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from nightrec import settings
from nightrec.contract import Table
from nightrec.pipeline import STAGES
from nightrec.report import ablation
from nightrec.report.quality import made, quality
from nightrec.tables import TABLES

README = "README.md"
RESULTS = "infra/benchmarks/results"
JUDGED = "infra/quality"
MADE = "infra/quality/made"
ABLATED = "infra/quality/ablations"
REFERENCE = "infra/config/reference.toml"
_ABOUT_REFERENCE = (
    "Every setting of nightrec.toml, with its default behind a #. `nightrec init` writes this file for a log,\n"
    "with what it decided from the log in force. Made by: python -m nightrec.report.docs --write"
)


def stages() -> str:
    """The stages in the order data flows, as a Markdown table."""
    rows = [f"| `{s.name}` | {s.rhythm} | {_listed(s.reads)} | {_listed(s.writes)} | {s.about} |" for s in STAGES]
    return "\n".join(["| stage | rhythm | reads | writes | what it does |", "|---|---|---|---|---|", *rows])


def tables() -> str:
    """The tables in the order they are written, as a Markdown table."""
    head = ["| table | one row is | key | replaced by | written by |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(_table(table) for table in TABLES)])


def _table(table: Table) -> str:
    key = _listed(table.key) or "-"
    unit = _listed(table.partition) or "list that changed"
    writer = f"`{table.stage}`" if table.stage else {"runs": "trainings and trials"}.get(table.name, "every stage")
    return f"| `{table.name}` | {table.grain} | {key} | {unit} | {writer} |"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(name if " " in name else f"`{name}`" for name in names)


def benchmarks(results: list[dict[str, Any]]) -> str:
    """What the benchmarks found, as Markdown: a line per goal with its medians, then why the missed ones were."""
    lines = ["| benchmark | goal | ratio | wanted | |", "|---|---|---|---|---|"]
    reasons, machines = [], set()
    for found in results:
        machine = found["machine"]
        machines.add(f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}")
        for goal in found["goals"]:
            wanted = f"{'at most' if goal['at_most'] else 'at least'} {goal['goal']:g}"
            cells = (found["benchmark"], goal["name"], f"{goal['ratio']:.3g}", wanted, goal["outcome"])
            lines.append(f"| {' | '.join(cells)} |")
            if goal["why"] and goal["outcome"] != "met":
                reasons.append(f"- {goal['name']}: {goal['why']}")
    told = f"Ratios of medians within one run, on: {'; '.join(sorted(machines)) or 'nothing yet'}."
    return "\n".join([told, "", *lines, *(["", "Missed, and why:", *reasons] if reasons else [])])


def growth(results: list[dict[str, Any]]) -> str:
    """Seconds of each stage and the memory of its largest processes by size of the log, as a Markdown table."""
    figures = [figure for found in results if found["benchmark"] == "growth" for figure in found["figures"]]
    if not figures:
        return "Not measured yet."
    sizes = list(dict.fromkeys(figure["case"] for figure in figures))
    cells = {(figure["contestant"], figure["case"]): figure for figure in figures}
    lines = [f"| stage | {' | '.join(sizes)} |", f"|---|{'---|' * len(sizes)}"]
    for stage in STAGES:
        told = [_grown(cells[stage.name, size]) for size in sizes if (stage.name, size) in cells]
        lines.append(f"| `{stage.name}` | {' | '.join(told)} |")
    return "\n".join(lines)


def _grown(figure: dict[str, Any]) -> str:
    facts = figure["facts"]
    return f"{figure['median']:.0f} s, {facts['jvm_GiB']:.1f} + {facts['python_GiB']:.1f} GiB"


def results(root: Path) -> list[dict[str, Any]]:
    """The kept results of a checkout's benchmarks, by name."""
    return _kept(root / RESULTS)


def _kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def readme(
    text: str,
    measured: list[dict[str, Any]],
    judged: list[dict[str, Any]],
    judged_made: list[dict[str, Any]],
    ablated: dict[str, dict[str, Any]],
) -> str:
    """The README with its generated parts made anew; each stands between <!-- name --> and <!-- /name -->.

    Raises ValueError where a pair of marks is missing.
    """
    parts = {
        "stages": stages(),
        "tables": tables(),
        "benchmarks": benchmarks(measured),
        "growth": growth(measured),
        "quality": quality(judged),
        "made": made(judged_made),
        "ablation": ablation.markdown(ablated),
    }
    for name, told in parts.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"the README has no <!-- {name} --> ... <!-- /{name} -->")
        text = marked.sub(lambda found, told=told: f"{found[1]}{told}\n{found[2]}", text)  # type: ignore[misc]
    return text


def reference() -> str:
    """The reference of every setting, as TOML that loads."""
    return settings.toml(_ABOUT_REFERENCE)


def generated(root: Path) -> dict[Path, str]:
    """What each generated file of a checkout should hold."""
    file = root / README
    ablated = {
        found.stem: json.loads(found.read_text(encoding="utf-8")) for found in sorted((root / ABLATED).glob("*.json"))
    }
    text = readme(file.read_text(encoding="utf-8"), results(root), _kept(root / JUDGED), _kept(root / MADE), ablated)
    return {file: text, root / REFERENCE: reference()}


def stale(root: Path) -> list[Path]:
    """Generated files of a checkout that do not hold what they should."""
    fresh = generated(root)
    return [file for file, text in fresh.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]


def main() -> None:
    """Write or check the generated files of the checkout that is the working folder."""
    arguments = argparse.ArgumentParser(description="generated documentation")
    group = arguments.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", action="store_true", help="make the files anew")
    group.add_argument("--check", action="store_true", help="only say which are stale; exit code 1 if any")
    options = arguments.parse_args()
    found = stale(Path.cwd())
    if options.write:
        for file, text in generated(Path.cwd()).items():
            file.write_text(text, encoding="utf-8")
    for file in found:
        print(f"{'wrote' if options.write else 'stale:'} {file}")
    sys.exit(1 if options.check and found else 0)


if __name__ == "__main__":
    main()
