"""What a whole night prints when it is done: books, stages, three users, quality, places, what to try next."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from nightrec.config import Config
from nightrec.printable import one_line
from nightrec.report import books as ledger
from nightrec.report import show
from nightrec.report.models import serving
from nightrec.store import arrow, location, version
from nightrec.tables import AUDIT_RESULTS, CANDIDATES, CHAMPIONS, CLEAN_EVENTS, LEDGER, PUBLISHED_TOPK, RANKED_TOPK

if TYPE_CHECKING:
    from nightrec.night import Books


@dataclass(frozen=True)
class Quality:
    """Published lists against what their users did in the days after, beside recent popularity. Means over `users`."""

    users: int
    k: int
    days: int
    ndcg: float
    recall: float
    popular_ndcg: float
    popular_recall: float


def stage_line(books: Books) -> str:
    """One stage in a line: date, seconds and Spark's own among them, rows in and out, and its other fates by size."""
    came = books.rows("read") + books.rows("input")
    other: Counter[str] = Counter()
    for fate, reason, rows in books.lines:
        # Rejects are told apart in the books. A detail that only repeats the stage says nothing.
        if fate not in ("read", "input", "written", "shown", "filled") and rows:
            other[fate if fate == "rejected" or reason in ("", books.stage) else f"{fate} {reason}"] += rows
    rest = ", ".join(
        f"{name} {rows:,}" for name, rows in sorted(other.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    counts = f"in {came:>9,}  out {books.rows('written'):>9,}"
    time = f"{books.seconds:6.1f} s, {books.overhead:4.1f} overhead"
    return f"{books.stage:<17} {books.date}  {time}  {counts}  {rest}".rstrip()


def parts_line(books: Books) -> str:
    """What the parts of a stage took, most first; those below a tenth of a second together. '' where it told none."""
    shown = [(name, seconds) for name, seconds in books.parts if seconds >= 0.1]
    rest = [seconds for _, seconds in books.parts[len(shown) :]]
    told = [f"{name} {seconds:.1f}" for name, seconds in shown]
    told += [f"{len(rest)} others {sum(rest):.1f}"] if rest else []
    return f"  seconds of cores: {', '.join(told)}" if told else ""


def time_line(seconds: float, books: Sequence[Books]) -> str:
    """How long the night took, and what the stages' overhead is."""
    overhead = sum(each.overhead for each in books)
    return f"The night took {seconds:.0f} s; {overhead:.0f} s were overhead: Spark planned, compiled, committed."


def three_users(config: Config, night: date) -> list[str]:
    """Up to three users with published lists, chosen by how much they did that day (`spread`)."""
    warehouse = config.paths.warehouse
    listed = set(arrow(warehouse, PUBLISHED_TOPK, {"list_kind": "user"}, ["list_key"])["list_key"].to_pylist())
    today = arrow(warehouse, CLEAN_EVENTS, {"ingest_date": night}, ["user_id"])
    return spread(Counter(user for user in today["user_id"].to_pylist() if user in listed), listed)


def spread(counts: Mapping[str, int], listed: Iterable[str]) -> list[str]:
    """The users with most, median and fewest events; ties by user id. Places left: users with lists, first by id."""
    by_count = sorted(counts, key=lambda user: (-counts[user], user))
    chosen = [by_count[place] for place in sorted({0, len(by_count) // 2, len(by_count) - 1})] if by_count else []
    return [*chosen, *(user for user in sorted(listed) if user not in chosen)][:3]


def quality_line(quality: Quality | None) -> str:
    """The published lists' quality in a sentence that does not claim more than it knows."""
    if quality is None or not quality.users:
        return "Quality: nobody with a list did anything in the days after that could be compared with it."
    k = quality.k
    return (
        f"An illustration, not a measure of quality: on the {quality.days} days after, for {quality.users:,} users,"
        f" NDCG@{k} {quality.ndcg:.3f} and Recall@{k} {quality.recall:.3f}"
        f" (recent popularity: {quality.popular_ndcg:.3f} and {quality.popular_recall:.3f})."
    )


def places(config: Config) -> Text:
    """Where the tables people look at first are, with their versions."""
    warehouse = config.paths.warehouse
    shown = warehouse if "://" in warehouse else _short(Path(warehouse))
    text = Text(f"Tables (Delta, one folder each) in {shown}:")
    for table in (PUBLISHED_TOPK, RANKED_TOPK, CANDIDATES, CLEAN_EVENTS, LEDGER):
        text.append(f"\n  {table.name:<15} version {version(warehouse, table):>3}  {table.grain}")
    return text


def commands(config_file: Path, config: Config, user_id: str, night: date) -> list[str]:
    """Three commands to try next, as they can be pasted into a shell in the folder where the night ran."""
    program = shlex.quote(_short(Path(sys.argv[0])) if Path(sys.argv[0]).name == "nightrec" else "nightrec")
    file = shlex.quote(_short(config_file))
    table = location(config.paths.warehouse, PUBLISHED_TOPK)
    read = f"import deltalake; print(deltalake.DeltaTable({_short(Path(table))!r}).to_pandas().head())"
    return [
        f"{program} show {shlex.quote(user_id)} --config {file}",
        f"{program} report --config {file} --date {night}",
        f"{shlex.quote(_short(Path(sys.executable)))} -c {shlex.quote(read)}",
    ]


def _short(path: Path) -> str:
    """A path from here, where it is below here; links are left as they are (a virtual environment's Python is one)."""
    whole = Path.cwd() / path
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def render(config: Config, night: date, users: Sequence[str], time: str, quality: Quality | None) -> Group:
    """Everything a night prints at its end between the lines of its stages and the commands to try next."""
    everything, tonight = ledger.lines(config.paths.warehouse), ledger.lines(config.paths.warehouse, night)
    past = [line for line in everything if line.run_date <= night]
    parts: list[RenderableType] = [
        Rule(f"Night of {night}", align="left"),
        ledger.balance_text(ledger.balance(past), f"Raw lines up to {night}"),
        ledger.balance_text(ledger.balance(tonight), f"Raw lines of {night}"),
        Text(published_line(tonight)),
        *(Text(line) for line in serving(config.paths.warehouse, night).lines()),
        *(Text(line) for line in verdicts(config, night)),
    ]
    for user in users:
        parts += ["", show.render(show.show(config, user, night))]
    parts += ["", quality_line(quality), "", places(config), "", time, "Try next:"]
    return Group(*parts)


def published_line(tonight: Sequence[ledger.Line]) -> str:
    """What the night changed in published_topk, in a sentence."""
    counts = {line.fate: line.row_count for line in tonight if line.stage == PUBLISHED_TOPK.stage}
    if not counts:
        return "Nothing was published."
    changed = ", ".join(f"{counts.get(fate, 0):,} {fate}" for fate in ("inserted", "updated", "deleted", "unchanged"))
    if not counts.get("written"):
        return f"Nothing that is published changed: 0 rows written to published_topk ({changed})."
    return f"Published: {counts['written']:,} rows written to published_topk ({changed})."


def verdicts(config: Config, night: date) -> list[str]:
    """What the audit found, and which models serve and why, in a sentence each; none of what was not looked at."""
    results = arrow(config.paths.warehouse, AUDIT_RESULTS, {"run_date": night}).to_pylist()
    judged = [row for row in results if row["severity"] != "note"]
    failed = [f"{row['check_name']} ({row['severity']}): {row['detail']}" for row in judged if not row["passed"]]
    champions = arrow(config.paths.warehouse, CHAMPIONS, {"run_date": night}).to_pylist()
    audit = f"Audit: {len(judged) - len(failed)} of {len(judged)} checks hold, {len(results) - len(judged)} are notes."
    return [*([audit] if results else []), *failed, *(row["reason"] for row in champions)]


def as_dict(
    config: Config, night: date, books: Sequence[Books], seconds: float, quality: Quality | None = None
) -> dict[str, Any]:
    """The end of a night for machines."""
    return {
        "night": night.isoformat(),
        "seconds": round(seconds, 1),
        "stages": [
            {
                "stage": each.stage,
                "date": each.date.isoformat(),
                "seconds": round(each.seconds, 3),
                "overhead": round(each.overhead, 3),
                "parts": {name: round(seconds, 3) for name, seconds in each.parts},
                "said": list(each.said),
                "lines": [{"fate": fate, "reason": reason, "rows": rows} for fate, reason, rows in each.lines],
            }
            for each in books
        ],
        "models": serving(config.paths.warehouse, night).as_dict(),
        "books": ledger.as_dict(ledger.lines(config.paths.warehouse, night)),
        "verdicts": verdicts(config, night),
        "users": [show.show(config, user, night).as_dict() for user in three_users(config, night)],
        "quality": asdict(quality) if quality else None,
    }


def nothing_left(console: Console, config_file: Path, config: Config, night: date, as_json: bool = False) -> None:
    """The end of a night that was done before: what it published and where everything is. Reads tables only."""
    if as_json:
        print(json.dumps(as_dict(config, night, [], 0.0), ensure_ascii=False, indent=2))
        return
    console.print(Text(published_line(ledger.lines(config.paths.warehouse, night))))
    console.print(places(config), "Try next:", sep="\n")
    _print_commands(console, config_file, config, night, three_users(config, night))


def summary(
    console: Console,
    config_file: Path,
    config: Config,
    night: date,
    books: Sequence[Books],
    seconds: float,
    as_json: bool = False,
    quality: Quality | None = None,
) -> None:
    """Print the end of a night: for people to `console`, or as one JSON object to standard output."""
    if as_json:
        answer = as_dict(config, night, books, seconds, quality)
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        users = three_users(config, night)
        console.print(render(config, night, users, time_line(seconds, books), quality))
        _print_commands(console, config_file, config, night, users)


def _print_commands(console: Console, config_file: Path, config: Config, night: date, users: Sequence[str]) -> None:
    for command in commands(config_file, config, users[0] if users else "", night):
        # A wrapped or cropped command cannot be pasted.
        console.print(Text(f"  {one_line(command)}"), soft_wrap=True)
