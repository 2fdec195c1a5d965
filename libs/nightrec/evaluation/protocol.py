"""Rolling cuts in time: train and run a night as of each, then judge its lists and the baselines' on what came after.

The night's own stages are called, from cleaning to ranked_topk, in a warehouse of the evaluation's own: what is
measured is what a deployment would have published. The cuts are walked forwards, and nothing that arrived after a cut
is cleaned before its lists are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING

from nightrec import raw, runner
from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.evaluation.findings import Findings, findings
from nightrec.evaluation.judge import judge
from nightrec.night import Books, Night
from nightrec.pipeline import NIGHT, stage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.runner import Watch


def apart(config: Config) -> Config:
    """The same deployment with tables, models and exports of its own, below its folder of reports."""
    root = f"{config.paths.reports}/evaluation"
    own = {name: f"{root}/{name}" for name in ("warehouse", "models", "exports")}
    return config.model_copy(update={"paths": config.paths.model_copy(update=own)})


def cuts(config: Config, count: int, days: int) -> list[date]:
    """The last `count` dates, `days` apart, that have `days` of arrived events after them. Raises UsageError where the
    log is too short to train before the first."""
    arrived = raw.ingest_dates(config.paths.raw, "events")
    last = arrived[-1] - timedelta(days=days)
    found = [last - timedelta(days=days * n) for n in reversed(range(count))]
    if not arrived or found[0] - timedelta(days=config.ranker.horizon_days * config.ranker.past_cuts) < arrived[0]:
        raise UsageError(
            f"{count} cuts of {days} days and {config.ranker.past_cuts} training cuts of {config.ranker.horizon_days} "
            f"days need more than the {len(arrived)} dates of {config.paths.raw}; ask for fewer or shorter ones"
        )
    return found


def walk(spark: SparkSession, config: Config, wanted: list[date], days: int, watch: Watch) -> Iterator[Books]:
    """Train and run a night as of each cut up to its lists; then clean what came after the last."""
    for cut in wanted:
        with Night(spark, config, cut, warm=True) as night:
            yield from _night(night, watch)
    with Night(spark, config, wanted[-1] + timedelta(days=days)) as night:
        yield runner.run_stage(night, stage("clean_events"))


def _night(night: Night, watch: Watch) -> Iterator[Books]:
    clean, *rest = NIGHT[: NIGHT.index(stage("ranked_topk")) + 1]
    with watch(f"{clean.name} {night.date}"):
        yield runner.run_stage(night, clean)
    yield from runner.train(night, watch)
    for step in rest:
        with watch(f"{step.name} {night.date}"):
            yield runner.run_stage(night, step)


def judged(spark: SparkSession, config: Config, wanted: list[date], days: int) -> Findings:
    """What the lists that `walk` made were worth, beside the baselines."""
    with Night(spark, config, wanted[-1]) as night:
        return findings(judge(night, wanted, days), config.lists.k, days)
