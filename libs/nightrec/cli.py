"""The command line: whole nights, trainings, single stages, and what people ask about them.

Exit codes: 0 done, 1 a bug or an outside failure, 2 bad usage or config, 3 bad input stopped the night, 4 the audit
refused.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.console import Console

from nightrec import config as configuration
from nightrec import quality, quarantine, scratch
from nightrec.errors import NightrecError, storage_failed
from nightrec.options import DATE, ConfigOption, JsonOption, answer, tell
from nightrec.past import commands as nights
from nightrec.pipeline import STAGES, Stage
from nightrec.printable import lines
from nightrec.privacy import commands as privacy

if TYPE_CHECKING:
    from nightrec.night import Books, Night

app = typer.Typer(
    help="A fresh, audited list per user every morning, from raw interaction logs.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

DateOption = Annotated[datetime, typer.Option("--date", help="the night", **DATE)]
NightOption = Annotated[
    datetime | None, typer.Option("--date", help="the night; the last one published without it", **DATE)
]
AlsOption = Annotated[
    str | None,
    typer.Option("--als-model", metavar="ID", help="item factors to use; same-date = those trained as of --date"),
]
RankerOption = Annotated[str | None, typer.Option("--ranker-model", metavar="ID", help="ranker to use")]


def main() -> None:
    """Entry point: a failure that a user can mend ends in one sentence and its exit code, never in a traceback."""
    code = _ended()
    with suppress(OSError):  # whoever read it has gone
        sys.stdout.flush()
        sys.stderr.flush()
    scratch.clear()
    # Not by the interpreter's own end: a thread that a read by Arrow has left aborted it (exit code 134), in one of ten
    # nights that had nothing left to do.
    os._exit(code)


def _ended() -> int:
    """Run the command that was asked for; its exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except NightrecError as error:
        _complain(str(error))
        return error.exit_code
    except Exception as error:
        if failed := storage_failed(error):
            _complain(str(failed))
            return failed.exit_code
        trace = Path("nightrec-failure.txt").resolve()
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        first = str(error).strip().splitlines()
        _complain(f"failed: {type(error).__name__}: {first[0] if first else ''}\nthe whole trace is in {trace}")
        return 1
    return 0


def _complain(message: str) -> None:
    Console(stderr=True, highlight=False).print(lines(message), style="bold red", markup=False)


@contextmanager
def _open(
    config: Path, night: datetime, name: str, als: str | None = None, ranker: str | None = None
) -> Iterator[Night]:
    """A night on a warm session, for as long as the `with` lasts."""
    from nightrec.night import Night
    from nightrec.parent import die_with_parent
    from nightrec.session import session

    settings = configuration.load(config)
    die_with_parent()
    warm = name in ("run", "train")
    spark = session(settings.spark, f"nightrec {name} {night.date()}", warm=warm)
    try:
        with Night(spark, settings, night.date(), als, ranker, warm=warm) as opened:
            yield opened
    finally:
        spark.stop()


@app.command(rich_help_panel="Nights")
def run(
    config: ConfigOption,
    date: DateOption,
    als_model: AlsOption = None,
    ranker_model: RankerOption = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="compute this stage and those after it anew, done or not"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the whole night: clean what is new, train if there is no model, rank, audit, publish, export.

    A night that failed is taken up at the first stage that is not done, or no longer fits what lies there now.

    Example: `nightrec run --config var/demo/nightrec.toml --date 1998-03-25`
    """
    from nightrec import runner
    from nightrec.hindsight import quality
    from nightrec.progress import StageProgress
    from nightrec.report.night import nothing_left, summary

    console = Console(stderr=json, highlight=False)
    started = time.monotonic()
    settings = configuration.load(config)
    named = {"als_model": als_model, "ranker_model": ranker_model}
    before = None
    if "://" not in f"{settings.paths.raw}{settings.paths.warehouse}":  # Spark alone reads other places
        before = runner.standing(settings, date.date(), {name: model for name, model in named.items() if model}, since)
    if before and not before.following:
        console.print(before.told(date.date()), soft_wrap=True)
        nothing_left(console, config, settings, date.date(), json)
        return
    with _open(config, date, "run", als_model, ranker_model) as night:
        console.print(f"night {night.date} of {config}: Spark is up after {time.monotonic() - started:.0f} s")
        told = partial(console.print, soft_wrap=True)
        books = _watched(runner.run(night, StageProgress(night.spark, console), since, told), console)
        seconds = time.monotonic() - started
        summary(console, config, night.config, night.date, books, seconds, json, quality(night))


@app.command(rich_help_panel="Nights")
def train(config: ConfigOption, date: DateOption) -> None:
    """Train item factors and ranker as of a date, from what had arrived by then.

    Example: `nightrec train --config var/demo/nightrec.toml --date 1998-03-18`
    """
    from nightrec import runner
    from nightrec.models import newest
    from nightrec.progress import StageProgress

    console = Console(highlight=False)
    with _open(config, date, "train") as night:
        _watched(iter([runner.run_stage(night, STAGES[0])]), console)
        _watched(runner.train(night, StageProgress(night.spark, console)), console)
        als, ranker = (newest(night.store.warehouse, kind, night.date) for kind in ("als", "ranker"))
    console.print(f"trained as of {date.date()}: item factors {als}, ranker {ranker}")


def _watched(books: Iterator[Books], console: Console) -> list[Books]:
    """Print a line per stage as it ends."""
    done = []
    for stage in books:
        tell(console, stage)
        done.append(stage)
    return done


@app.command(rich_help_panel="Look")
def show(
    user: Annotated[str, typer.Argument(metavar="USER")],
    config: ConfigOption,
    date: NightOption = None,
    json: JsonOption = False,
) -> None:
    """A user's history, tonight's list with its reasons, and what changed since the night before. Does not start Spark.

    Example: `nightrec show 196 --config var/demo/nightrec.toml`
    """
    from nightrec.privacy import pseudonyms
    from nightrec.report import show as page

    settings = configuration.load(config)
    shown = page.show(settings, pseudonyms.named(settings.privacy, user), date.date() if date else None)
    answer(shown.as_dict(), page.render(shown), json)


@app.command(rich_help_panel="Look")
def report(config: ConfigOption, date: NightOption = None, json: JsonOption = False) -> None:
    """The books: what became of every row in every stage, of one night or of all.

    Example: `nightrec report --config var/demo/nightrec.toml --date 1998-03-25`
    """
    from nightrec.report import books

    lines = books.lines(configuration.load(config).paths.warehouse, date.date() if date else None)
    answer(books.as_dict(lines), books.render(lines), json)


for _name in ("history", "diff", "rollback", "replay", "clean_up"):
    app.command(_name.replace("_", "-"), rich_help_panel="Past nights")(getattr(nights, _name))


for _command in (quality.evaluate, quality.ablate, quality.tune):
    app.command(rich_help_panel="Quality")(_command)
app.command(rich_help_panel="Quarantine")(quarantine.rejected)
app.command(rich_help_panel="Quarantine")(quarantine.repair)


app.command(rich_help_panel="Privacy")(privacy.forget)
app.command(rich_help_panel="Privacy")(privacy.rekey)


@app.command(rich_help_panel="Set up")
def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="TOML", help="a deployment's nightrec.toml; defaults without it")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="start Spark, run a Python function on a worker, write and read a table")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Look for what would go wrong here; every complaint names the command that mends it.

    Example: `nightrec doctor --deep`
    """
    from nightrec import doctor as checks

    found = checks.checks(configuration.load(config) if config else None, deep)
    answer([asdict(check) for check in found], checks.render(found), json)
    raise typer.Exit(checks.exit_code(found))


@app.command(rich_help_panel="Set up")
def init(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="a raw root, or a CSV, Parquet or JSON-lines file of events")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="where the deployment is made")],
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column of users")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column of items")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column of times")] = None,
    type: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column of event types")] = None,
    value: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column of ratings or quantities")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace what an earlier call made in FOLDER")] = False,
) -> None:
    """Make a deployment for a log of your own: guesses its columns, says what it guessed, writes the TOML file.

    Example: `nightrec init events.csv --out shop`
    """
    from nightrec.init import create, summary

    def choose(role: str, names: Sequence[str]) -> str:
        return str(typer.prompt(f"Which column is the {role}?", type=click.Choice(list(names))))

    named = {"user": user, "item": item, "time": time, "type": type, "value": value}
    chosen = {role: column for role, column in named.items() if column}
    made = create(source, out, chosen, force, choose if sys.stdin.isatty() else None)
    typer.echo(summary(made))


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(
        config: ConfigOption, date: DateOption, als_model: AlsOption = None, ranker_model: RankerOption = None
    ) -> None:
        from nightrec import runner

        with _open(config, date, stage.name, als_model, ranker_model) as night:
            _watched(iter([runner.run_stage(night, stage)]), Console(highlight=False))

    command.__doc__ = f"{stage.about[0].upper()}{stage.about[1:]}."
    return command


for _stage in STAGES:
    app.command(_stage.name, rich_help_panel=f"Stages of a {_stage.rhythm}")(_stage_command(_stage))
