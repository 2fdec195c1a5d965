"""Rolling cuts in time: train and run a night as of each, then judge its lists and the baselines' on what came after.

The night's own stages are called, from cleaning to ranked_topk, in a warehouse of the evaluation's own: what is
measured is what a deployment would have published. The cuts are walked forwards, and nothing that arrived after a cut
is cleaned before its lists are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from nightrec import raw, runner
from nightrec.adaptive import FEWEST_DAYS
from nightrec.config import HORIZON, Config
from nightrec.errors import UsageError
from nightrec.evaluation.findings import Findings, findings
from nightrec.evaluation.judge import Cut, judge
from nightrec.evaluation.lists import DEEP
from nightrec.night import Books, Night
from nightrec.pipeline import LISTING, stage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.runner import Watch

# Days after each cut where nobody says how many: the most for which the log is long enough.
DAYS = (14, 7, 3, 1)


def apart(config: Config, name: str) -> Config:
    """The same deployment with tables, models, exports and curves of its own, in a folder among its reports."""
    root = f"{config.paths.reports}/{name}"
    own = {"reports": root, **{kind: f"{root}/{kind}" for kind in ("warehouse", "models", "exports")}}
    return config.model_copy(update={"paths": config.paths.model_copy(update=own)})


def cuts(config: Config, count: int, days: int, until: date = date.max) -> list[date]:
    """The last `count` dates, `days` apart, that have `days` of events after them which had arrived by `until`.

    Raises UsageError where the log is too short to train before the first.
    """
    arrived = [day for day in raw.ingest_dates(config.paths.raw, "events") if day <= until]
    horizon = config.ranker.horizon_days or min(days, HORIZON)
    needed = _needed(config, count, days)
    if not arrived or arrived[-1] - timedelta(days=needed) < arrived[0]:
        mend = "ask for fewer or shorter ones"
        if len(arrived) == 1:
            mend = "events that came at once are dealt out to their days by `nightrec init FILE --out FOLDER`"
        raise UsageError(
            f"{count} cuts of {days} days and a training of twice {horizon} days need {needed} days before the last; "
            f"the {len(arrived)} dates of {config.paths.raw} do not reach so far back: {mend}"
        )
    return [arrived[-1] - timedelta(days=days * n) for n in range(count, 0, -1)]


def days_for(config: Config, count: int, until: date = date.max) -> tuple[int, str]:
    """The first of DAYS that the log has for so many cuts, and why it was taken, in a sentence; the last of them where
    it has not even that many, which `cuts` then refuses."""
    arrived = [day for day in raw.ingest_dates(config.paths.raw, "events") if day <= until]
    span = (arrived[-1] - arrived[0]).days if arrived else 0
    taken = next((days for days in DAYS if _needed(config, count, days) <= span), DAYS[-1])
    cuts = f"{count} cut{'s' if count > 1 else ''} of {DAYS[0]} days"
    judged = f"judged by {taken} day{'s' if taken > 1 else ''} after {'each' if count > 1 else 'it'}"
    enough = "long enough" if taken == DAYS[0] else "too short"
    return taken, f"The log's {span + 1} days are {enough} for {cuts}: {judged}."


def _needed(config: Config, count: int, days: int) -> int:
    """Days of the log before its last: a training learns from one horizon before what it is judged on, and knows one
    horizon more. A log decides its horizon once it has FEWEST_DAYS, the first cut's own among them."""
    before = 2 * (config.ranker.horizon_days or min(days, HORIZON))
    return days * count + max(before, FEWEST_DAYS - 1)


def evaluate(
    spark: SparkSession, config: Config, wanted: list[date], days: int, watch: Watch, tell: Callable[[Books], None]
) -> Findings:
    """Run and judge each cut in a new warehouse (`config` is `apart`'s); `tell` hears of every stage as it ends."""
    judged: list[Cut] = []
    last: dict[str, Books] = {}

    def hear(books: Books) -> None:
        last[books.stage] = books
        tell(books)

    for night, _ in nights(spark, config, wanted, days, watch, hear):
        started = time.monotonic()
        with watch(f"judge {night.date}"):
            # The last that were nominated are the night's own: replays come before them.
            judged.append(judge(night, days, dict(last["candidates"].parts)))
        tell(Books("judge", night.date, (), time.monotonic() - started, 0.0))
    return findings(judged, config.lists.k, days)


def nights(
    spark: SparkSession, config: Config, wanted: list[date], days: int, watch: Watch, tell: Callable[[Books], None]
) -> Iterator[tuple[Night, set[date]]]:
    """The night of each cut, trained and run up to ranked_topk, when the `days` after it have been cleaned too; and the
    dates of which replays with the same settings are there. In a new warehouse: `config` is `apart`'s."""
    _remove(spark, config.paths.warehouse)
    replayed: set[date] = set()
    for cut in wanted:
        with Night(spark, config, cut, warm=True) as night:
            for books in _night(night, watch, replayed):
                tell(books)
            replayed |= set(night.training_cuts())
            as_made = night.config
        # At once: the next cut may replay this night, with candidates for users alone.
        with Night(spark, config, cut + timedelta(days=days)) as later:
            with watch(f"clean_events {later.date}"):
                tell(runner.run_stage(later, stage("clean_events")))
            # With what the log had decided by the cut: later it may decide otherwise.
            yield Night(spark, as_made, cut, store=later.store), replayed


def _remove(spark: SparkSession, folder: str) -> None:
    """What an earlier evaluation left, perhaps of another config: cleaned events are not cleaned again."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(folder)
    path.getFileSystem(spark._jsc.hadoopConfiguration()).delete(path, True)


def _night(night: Night, watch: Watch, replayed: set[date]) -> Iterator[Books]:
    clean, *rest = LISTING
    with watch(f"{clean.name} {night.date}"):
        yield runner.run_stage(night, clean)
    yield from runner.train(night, watch, replayed)
    for step in rest:
        with watch(f"{step.name} {night.date}"):
            yield runner.run_stage(night.deeper(DEEP) if step.name == "ranked_topk" else night, step)

