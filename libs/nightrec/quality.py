"""The commands that try the system out on the past: evaluate, ablate, tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date as day
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from nightrec import config as configuration
from nightrec.options import DATE, ConfigOption, JsonOption, answer, tell

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.config import Config
    from nightrec.night import Books
    from nightrec.runner import Watch

CutsOption = Annotated[int, typer.Option("--cuts", min=1, help="cuts in time, the last as late as the log permits")]
DaysOption = Annotated[
    int | None,
    typer.Option(
        "--days", min=1,
        help="days after each cut that are judged, and between cuts; 14 where nothing is said, or 7, 3, 1 in a log too "
        "short for that",
    ),
]  # fmt: skip


def _console() -> Console:
    """For what is told on the way; standard output is for the answer."""
    return Console(stderr=True, highlight=False)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def _windows(
    settings: Config, cuts: int, days: int | None, console: Console, until: day = day.max
) -> tuple[list[day], int]:
    """The cuts, and the days after each: as many as the log permits where nobody says, which is told."""
    from nightrec.evaluation import protocol

    chosen, why = (days, "") if days else protocol.days_for(settings, cuts, until)
    wanted = protocol.cuts(settings, cuts, chosen, until)
    if why:
        _say(console, why)
    return wanted, chosen


@contextmanager
def _session(
    settings: Config, name: str, console: Console
) -> Iterator[tuple[SparkSession, Watch, Callable[[Books], None]]]:
    """A warm session, what watches its stages, and what prints each one's line as it ends."""
    from nightrec.parent import die_with_parent
    from nightrec.progress import StageProgress
    from nightrec.session import session

    die_with_parent()
    spark = session(settings.spark, f"nightrec {name}", warm=True)
    try:
        yield spark, StageProgress(spark, console), partial(tell, console)
    finally:
        spark.stop()


def evaluate(config: ConfigOption, cuts: CutsOption = 3, days: DaysOption = None, json: JsonOption = False) -> None:
    """How good the lists would have been: nights as of past cuts, judged on what came after, beside simple baselines.

    Trains anew at every cut, in a warehouse of its own below the reports' folder. Minutes per cut. Items of a user's
    past count where candidates.repeats_allowed says so. The same with charts goes to evaluation.html among the reports.

    Example: `nightrec evaluate --config var/demo/nightrec.toml --days 28`
    """
    from nightrec.evaluation import protocol
    from nightrec.report import evaluation as page
    from nightrec.report import evaluation_charts as charts

    deployment = configuration.load(config)
    settings = protocol.apart(deployment, "evaluation")
    console = _console()
    wanted, length = _windows(settings, cuts, days, console)
    with _session(settings, "evaluate", console) as (spark, watch, tell):
        found = protocol.evaluate(spark, settings, wanted, length, watch, tell)
    html = charts.write(found, Path(deployment.paths.reports))
    answer(page.as_dict(found), page.render(found, html), json)


def ablate(
    config: ConfigOption,
    cuts: CutsOption = 3,
    days: DaysOption = None,
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="PART", help="sources, features, heads, blends, nights, or by name; repeatable"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """What each part is worth: past nights as they are, and without each part, judged on what came after.

    Each source and each group of features out, other heads, network or trees alone, other numbers of past nights.
    Candidates are made once per cut; a variant labels, trains and ranks again what it changes: up to a minute each per
    cut. Each says how long the rest will take. Ended anywhere and started again, it goes on with what is left.

    Example: `nightrec ablate --config var/demo/nightrec.toml --part sources --part "without features own"`
    """
    from nightrec.evaluation import ablation, protocol
    from nightrec.report import ablation as page

    settings = protocol.apart(configuration.load(config), "ablation")
    asked = ablation.chosen(settings, parts or [])
    console = _console()
    wanted, length = _windows(settings, cuts, days, console)
    with _session(settings, "ablate", console) as (spark, watch, tell):
        found = ablation.ablate(spark, settings, wanted, length, asked, watch, tell, partial(_say, console))
    answer(page.as_dict(found), page.render(found), json)


def tune(
    config: ConfigOption,
    date: Annotated[
        datetime | None,
        typer.Option("--date", help="tune by what had arrived by then; by the whole log without it", **DATE),
    ] = None,
    cuts: CutsOption = 3,
    days: DaysOption = None,
    sampler: Annotated[Literal["grid", "random", "bayesian"], typer.Option(help="how settings are drawn")] = "bayesian",
    trials: Annotated[
        int | None, typer.Option(min=1, help="trials in all, with those of earlier starts; 20 where nothing is said")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="minutes after which no new trial is begun")] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", metavar="SECTION.KEY", help="search this setting; repeatable")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Search for settings whose lists would have been worth more, by NDCG over the last windows; hours.

    The first trial is the deployment's own settings; others win only if more than one standard error ahead. The winner
    is written to tuned.toml beside the deployment's TOML file, for nights to take as their --config. Killed and started
    again, the search goes on.

    Example: `nightrec tune --config var/demo/nightrec.toml --minutes 60 --key als.rank --key als.alpha`
    """  # fmt: skip
    from nightrec.errors import UsageError
    from nightrec.evaluation import protocol, tuning
    from nightrec.evaluation.space import searched
    from nightrec.evaluation.trials import Bench
    from nightrec.report import tuning as page

    if config.name == tuning.TUNED:
        raise UsageError(f"{config} is what tune writes; name the file that it extends")
    settings = protocol.apart(configuration.load(config), "tuning")
    space = searched(settings, keys or [])
    console = _console()
    wanted, length = _windows(settings, cuts, days, console, date.date() if date else day.max)
    budget = trials or (None if minutes else 20)
    with _session(settings, "tune", console) as (spark, watch, tell):
        bench = Bench(spark, settings, wanted, length, watch, tell)
        found = tuning.tune(bench, space, sampler, budget, minutes, partial(_say, console))
    file = tuning.write(found, config)
    answer(page.as_dict(found, file), page.render(found, tuning.verdict(found, config.name), file), json)
