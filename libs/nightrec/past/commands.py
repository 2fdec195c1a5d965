"""The commands over past nights: history, rollback, clean-up, diff, replay. But for replay none starts Spark."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date as day
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from nightrec import config as configuration
from nightrec.errors import UsageError
from nightrec.options import DATE, ConfigOption, JsonOption, answer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.config import Config
    from nightrec.past.undo import Publication
    from nightrec.store import Store



@contextmanager
def _writing(settings: Config) -> Iterator[Store]:
    """A hold on the warehouse for what the log alone can do, without Spark."""
    from nightrec.parent import die_with_parent
    from nightrec.store import Store

    die_with_parent()
    nights = settings.nights_kept
    with Store(cast("SparkSession", None), settings.paths.warehouse, uuid.uuid4().hex[:12], nights) as store:
        yield store


def history(config: ConfigOption, json: JsonOption = False) -> None:
    """The published nights that one can go back to, the latest first. Does not start Spark.

    Example: `nightrec history --config var/demo/nightrec.toml`
    """
    from nightrec.past.undo import kept, served

    settings = configuration.load(config)
    found = kept(settings.paths.warehouse, settings.retention.nights)
    now = served(settings.paths.warehouse)
    rows = [_row(each, bool(now and now.night == each.night)) for each in found]
    answer(rows, _table(rows, settings), json)


def _row(publication: Publication, is_served: bool) -> dict[str, Any]:
    return {
        "night": f"{publication.night}", "version": publication.version,
        "published": publication.written.strftime("%Y-%m-%d %H:%M UTC"), "lists_changed": publication.changed,
        "als_model": publication.als_model, "ranker_model": publication.ranker_model, "is_served": is_served,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]], settings: Config) -> Any:
    from rich.console import Group
    from rich.table import Table

    if not rows:
        return f"Nothing that one can go back to was published in {settings.paths.warehouse} yet."
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("night", "version", "published", "lists changed", "item factors", "ranker", ""):
        is_count, is_id = name in ("version", "lists changed"), name in ("item factors", "ranker")
        table.add_column(name, justify="right" if is_count else "left", no_wrap=not is_id, overflow="fold")
    for row in rows:
        *cells, is_served = row.values()
        shown = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
        table.add_row(*shown, "served" if is_served else "")
    return Group(table, f"The last {settings.retention.nights} published nights are kept (retention.nights).")


def rollback(
    config: ConfigOption,
    to: Annotated[datetime, typer.Option("--to", help="the night whose lists are to be served again", **DATE)],
    json: JsonOption = False,
) -> None:
    """Serve the lists of an earlier night again, in one commit; later nights use its models. Does not start Spark.

    Example: `nightrec rollback --to 1998-03-24 --config var/demo/nightrec.toml`
    """
    from nightrec.past.undo import roll_back

    settings = configuration.load(config)
    with _writing(settings) as store:
        done = roll_back(store, settings.retention.nights, to.date())
    if done is None:
        answer({"night": f"{to.date()}", "restored": False}, f"The lists of {to.date()} are served already.", json)
        return
    said = (
        f"Readers are served the lists of {done.night} again, instead of those of {done.instead_of} (version "
        f"{done.version} of published_topk). Until models trained as of a later date than {done.instead_of} are "
        f"judged not worse, nights use {done.als_model} and {done.ranker_model}.\n"
        "The next export hands the way back to every sink:\n"
        f"  nightrec export --config {config} --date {done.night}"
    )
    answer({**_row(done, True), "restored": True, "instead_of": f"{done.instead_of}"}, said, json)


def clean_up(
    config: ConfigOption,
    date: Annotated[datetime, typer.Option("--date", help="the night from which the window reaches back", **DATE)],
    keep_nights: Annotated[
        int | None, typer.Option("--keep-nights", min=1, help="more nights than retention.nights, never fewer")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove what nobody can go back to any more: rows of old nights, files of old versions. Does not start Spark.

    Example: `nightrec clean-up --config var/demo/nightrec.toml --date 1998-03-25`
    """
    from nightrec.past import clean_up as cleaning

    settings = configuration.load(config)
    with _writing(settings) as store:
        done = cleaning.clean_up(store, settings, date.date(), keep_nights)
    if done is None:
        nights = keep_nights or settings.retention.nights
        answer({"partitions": 0, "files": 0}, f"No more than {nights} nights are published: all of it is kept.", json)
        return
    said = (
        f"Removed {done.partitions} partitions of nights before {done.before} and {done.files} files that no kept "
        "version holds. Files of a partition go once no kept version has it any more: in a window's time."
    )
    machine = {"before": f"{done.before}", "partitions": done.partitions, "files": done.files}
    answer(machine, said, json)


def _night(text: str) -> day:
    try:
        return day.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date like 2026-01-31") from None


NightArgument = Annotated[str, typer.Argument(metavar="NIGHT", help="YYYY-MM-DD")]


def diff(night_a: NightArgument, night_b: NightArgument, config: ConfigOption, json: JsonOption = False) -> None:
    """Whose lists differ between two nights, and how: what came in (+), went out (-) and moved. Does not start Spark.

    The lists are those that the nights made, whether or not they were published.

    Example: `nightrec diff 1998-03-24 1998-03-25 --config var/demo/nightrec.toml`
    """
    from nightrec.past.diff import diff as compare

    before, after = _night(night_a), _night(night_b)
    found = compare(configuration.load(config).paths.warehouse, before, after)
    lines = [f"Lists of {after} against those of {before}:"]
    for kind, counts in found.counts.items():
        told = ", ".join(f"{counts.get(fate, 0):,} {fate}" for fate in ("same", "differ", "new", "gone"))
        lines.append(f"  {kind}: {told}")
    answer(asdict(found), "\n".join([*lines, *(change.told() for change in found.changes)]), json)


def replay(
    night: NightArgument,
    config: ConfigOption,
    work: Annotated[
        Path | None, typer.Option("--work", metavar="FOLDER", help="where it is built, and stays")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Build a night again from its manifest, in a warehouse apart, and compare its tables with what it wrote then.

    Ends with exit code 1 where a table differs.

    Example: `nightrec replay 1998-03-25 --config var/demo/nightrec.toml`
    """
    from nightrec.parent import die_with_parent
    from nightrec.past.replay import replay as build
    from nightrec.session import session

    settings, console = configuration.load(config), Console(stderr=True, highlight=False)
    # Beside the warehouse: files are linked, and links do not reach another disk.
    folder = work or Path(f"{settings.paths.warehouse}.replay-{night}")
    if folder.exists():
        raise UsageError(f"{folder} exists; remove it, or name another folder by --work")
    die_with_parent()
    spark = session(settings.spark, f"nightrec replay {night}")
    try:
        said: list[str] = []
        found = []
        for table in build(spark, settings, _night(night), folder, said.append):
            word = "equal" if table.is_equal else "DIFFERS"
            console.print(f"{table.table:<17} {word:<8} {table.rows[0]:>9,} rows  {table.digests[0]}", soft_wrap=True)
            found.append(table)
    finally:
        spark.stop()
        if work is None:
            shutil.rmtree(folder, ignore_errors=True)
    other = [table.table for table in found if not table.is_equal]
    end = f"{night} differs in {', '.join(other)}." if other else f"{night} is equal in all of {len(found)} tables."
    machine = {"night": night, "is_equal": not other, "said": said, "tables": [asdict(table) for table in found]}
    answer(machine, "\n".join([*said, end]), json)
    raise typer.Exit(1 if other else 0)
