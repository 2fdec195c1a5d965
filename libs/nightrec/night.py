"""One night in one process: what every job is given, and the door through which it is started."""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nightrec import adaptive, models, pipeline
from nightrec import config as configuration
from nightrec.config import Config
from nightrec.contract import Table
from nightrec.errors import AuditRefused, Fenced, NightrecError, storage_failed
from nightrec.parent import die_with_parent
from nightrec.past import manifest
from nightrec.past.pieces import Piece, Where
from nightrec.pipeline import SAME_DATE
from nightrec.printable import lines, one_line
from nightrec.session import session
from nightrec.stopwatch import Stopwatch
from nightrec.store import Commit, Store, arrow, partitions
from nightrec.tables import CLEAN_EVENTS, LEDGER, MANIFESTS, RANKER_MODELS
from nightrec.task_time import TaskClock

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

View = Callable[["DataFrame"], "DataFrame"]

# What stages ask of past events; the rest (keys, contexts, times of delivery) would only fill a warm session's memory.
HISTORY = ("ingest_date", "event_date", "event_ts", "user_id", "item_id", "event_type", "value", "weight", "text")


@dataclass(frozen=True)
class Books:
    """What one stage did: the lines of its ledger, how long it took, and for how much of it no Spark task ran; where it
    told its `parts` by name, the seconds of each, most first (see stopwatch); and what it `said`, sentences."""

    stage: str
    date: date
    lines: tuple[tuple[str, str, int], ...]
    seconds: float
    overhead: float
    parts: tuple[tuple[str, float], ...] = ()
    said: tuple[str, ...] = ()

    def rows(self, fate: str) -> int:
        """Rows of a fate, over all its reasons."""
        return sum(count for name, _, count in self.lines if name == fate)


class Night:
    """The night of `date`: its settings, its tables, the models it uses, and the books of the stage that runs.

    `als_model` and `ranker_model` name models; `same-date` is the factorization trained as of `date` itself.
    `warm` says that many stages will run in this session: it then keeps the past events in Spark's cache.
    Rows of the tables named in `views` are read through a function: so an ablation leaves out parts. Where a
    `depth` is named, lists go on down to it behind their first K.
    """

    def __init__(
        self,
        spark: SparkSession,
        config: Config,
        night: date,
        als_model: str | None = None,
        ranker_model: str | None = None,
        store: Store | None = None,
        *,
        warm: bool = False,
        views: Mapping[str, View] | None = None,
        depth: int | None = None,
    ) -> None:
        self.spark = spark
        self.asked = config
        self.config = config  # and what the log has decided of it
        self.date = night
        self.warm = warm
        run_id, nights = uuid.uuid4().hex[:12], config.nights_kept
        self.store = store or Store(spark, config.paths.warehouse, run_id, nights)
        self.depth = depth
        self._views = views or {}
        self._als_argument = als_model
        self._ranker_argument = ranker_model
        self._pinned: dict[str, str] | None = None
        self._used: set[str] = set()
        self._training: date | None = None  # as of which a past night is rebuilt
        self._lines: dict[tuple[date, str, str], int] = {}
        self._said: list[str] = []
        self.clock: Stopwatch  # of the stage that runs

    def at(self, night: date, als_model: str | None = None) -> Night:
        """Another night in the same process, under the same hold on the warehouse."""
        ranker, views = self._ranker_argument, self._views
        return Night(self.spark, self.config, night, als_model, ranker, self.store, warm=self.warm, views=views)

    def deeper(self, depth: int) -> Night:
        """The same night with lists down to a depth, likewise."""
        als, ranker, views = self._als_argument, self._ranker_argument, self._views
        own = self.spark, self.config, self.date
        return Night(*own, als, ranker, self.store, warm=self.warm, views=views, depth=depth)

    def cut(self, number: int) -> Night:
        """The past night so many horizons before the training as of this one, with factors of its own date."""
        past = self.at(self.date - timedelta(days=number * self.config.ranker.horizon), SAME_DATE)
        past._training = self.date
        return past

    def rehearsal(self, night: date, als_model: str, ranker_model: str, views: Mapping[str, View]) -> Night:
        """A past night with lists of users alone, of models of its own, which nothing pins or books: what is judged."""
        past = Night(
            self.spark, self.config, night, SAME_DATE, ranker_model, self.store, warm=self.warm, views=views
        )  # fmt: skip
        past._pinned = {"als_model": als_model, "ranker_model": ranker_model}
        past.clock = Stopwatch(self.spark)
        return past

    @property
    def names_models(self) -> bool:
        """Whether somebody named models for this night."""
        return bool(self._als_argument or self._ranker_argument)

    @property
    def als_model(self) -> str:
        """Id of the item factors this night uses."""
        if self.is_replay and self._pinned is None:
            return models.als_model_id(self.date, self.config)
        self._used.add("als_model")
        return self._models["als_model"]

    @property
    def is_replay(self) -> bool:
        """Whether this is a past night rebuilt for training, with the factors of its own date."""
        return self._als_argument == SAME_DATE

    @property
    def ranker_model(self) -> str:
        """Id of the ranker this night uses."""
        self._used.add("ranker_model")
        self.store.seen(RANKER_MODELS, {"model_id": self._models["ranker_model"]})
        return self._models["ranker_model"]

    @property
    def named(self) -> dict[str, str]:
        """The models that were named for this night, by the columns of night_models."""
        given = {"als_model": self._als_argument, "ranker_model": self._ranker_argument}
        return {name: model for name, model in given.items() if model and model != SAME_DATE}

    @property
    def _models(self) -> dict[str, str]:
        if self._pinned is None:
            self._pinned = models.pinned(self.store, self.config, self.date, self._als_argument, self._ranker_argument)
        return self._pinned

    def read(self, table: Table, where: Where | None = None) -> DataFrame:
        """Rows of a table: this night's where it is kept by night, all of it otherwise, or what `where` names."""
        if where is None and "run_date" in table.partition:
            where = {"run_date": self.date}
        self._lines[self.date, "input", table.name] = self.store.seen(table, where).rows
        rows = self.store.read(table, where)
        return self._views[table.name](rows) if table.name in self._views else rows

    def training_cuts(self) -> list[date]:
        """The cuts that a ranker trained as of this night learns from, as far as the log reaches back."""
        arrived = [part["ingest_date"] for part in partitions(self.store.warehouse, CLEAN_EVENTS)]
        return self.config.training_cuts(self.date, date.fromisoformat(min(arrived)) if arrived else self.date)

    def events(self, until: date | None = None, after: date | None = None) -> DataFrame:
        """HISTORY of clean_events that arrived up to `until` (this night) and, where given, later than `after`."""
        from pyspark.sql import functions as F

        until = until or self.date
        self._lines[self.date, "input", CLEAN_EVENTS.name] = self.store.seen(CLEAN_EVENTS, None, after, until).rows
        rows = self.store.kept(CLEAN_EVENTS, HISTORY) if self.warm else self.store.read(CLEAN_EVENTS).select(*HISTORY)
        frame = rows.where(F.col("ingest_date") <= F.lit(until))
        return frame if after is None else frame.where(F.col("ingest_date") > F.lit(after))

    def replace(self, table: Table, frame: DataFrame, where: Where | None = None) -> Commit:
        """Replace this night's partition of a table (or the one `where` names) and book the rows written."""
        commit = self.store.replace(table, frame, where or {"run_date": self.date})
        self.book("written", commit.rows, table.name)
        return commit

    def empty(self, table: Table, where: Where) -> None:
        """As `replace` by no rows, without a Spark job."""
        self.store.put(table, [], where)
        self.book("written", 0, table.name)

    def book(self, fate: str, rows: int, reason: str = "", ingest_date: date | None = None) -> None:
        """Add rows of a fate to the books of the running stage; for clean_events under each ingest date."""
        key = (ingest_date or self.date, fate, reason)
        self._lines[key] = self._lines.get(key, 0) + rows

    def tell(self, sentence: str) -> None:
        """A sentence for people, below the line of the running stage."""
        self._said.append(sentence)

    def decide(self) -> None:
        """Take over what the log has decided of settings that nobody has set."""
        self.config = decided(self.asked, self.date, self.config)

    def run(self, stage: str, job: Callable[[Night], None]) -> Books:
        """Run one stage; commit its books to the ledger after its table, and last its manifest."""
        self._lines.clear()
        self._said.clear()
        self._used.clear()
        self.store.reads.clear()
        self.store.writes.clear()
        self.clock = Stopwatch(self.spark)
        if adaptive.is_open(self.config):
            self.decide()
        started, tasks = time.monotonic(), TaskClock(self.spark)
        # Before they are read: what comes meanwhile is news to the next run.
        raw = manifest.raw_pieces(stage, self.config.paths.raw, self.date)
        try:
            job(self)
        except AuditRefused:
            self._commit_books(stage)  # a refused night has books too: they say which check refused it
            raise
        except Exception as error:
            self._book_failure(stage, error)
            raise
        self._commit_books(stage)
        # A night that leaves out parts, or ranks further down, is another one than that which its date names.
        if not self._views and self.depth is None and job is not _unreached:
            self._commit_manifest(stage, raw)
        if stage == CLEAN_EVENTS.stage:
            self.decide()
        lines = tuple((fate, reason, count) for (_, fate, reason), count in sorted(self._lines.items()))
        seconds = time.monotonic() - started
        overhead = max(0.0, seconds - tasks.seconds())
        return Books(
            stage, self.date, lines, seconds, overhead, tuple(self.clock.seconds().items()), tuple(self._said)
        )

    def _book_failure(self, stage: str, error: Exception) -> None:
        """Books of a training that failed, under its own date: the nights after it tell why there is no newer model."""
        day = self._training or self.date
        if isinstance(error, Fenced) or not (self._training or pipeline.stage(stage).rhythm == "training"):
            return
        # Another error's text may hold anything, rows too.
        why = str(error).splitlines()[0][:300] if isinstance(error, NightrecError) else type(error).__name__
        self._lines.clear()
        self.book("failed", 1, f"{stage} of {self.date}: {why}" if self._training else why, day)
        with suppress(Exception):  # what failed is what must be told
            # What a past night's stage has booked for that date is another night's; these books a success replaces.
            self._commit_books("ranker_examples" if self._training else stage)

    def _commit_books(self, stage: str) -> None:
        rows: list[dict[str, Any]] = [
            {
                "run_date": day,
                "stage": stage,
                "fate": fate,
                "reason": reason,
                "row_count": count,
                "run_id": self.store.run_id,
            }
            for (day, fate, reason), count in sorted(self._lines.items())
        ]
        if rows:
            self.store.put(LEDGER, rows, {"run_date": sorted({row["run_date"] for row in rows}), "stage": stage})

    def settled(self, stage: str) -> Config:
        """The config as a stage finds it: what the log decides is decided by what clean_events finds."""
        return self.asked if stage == CLEAN_EVENTS.stage else self.config

    def _commit_manifest(self, stage: str, raw: Sequence[Piece]) -> None:
        used = {name: model for name, model in (self._pinned or {}).items() if name in self._used}
        inputs, outputs = [*self.store.reads.values(), *raw], self.store.wrote()
        row = manifest.row(
            stage, self.date, self.is_replay, self.store.run_id, self.settled(stage), used, inputs, outputs
        )
        tonight = arrow(self.store.warehouse, MANIFESTS, {"run_date": self.date}).to_pylist()
        others = [other for other in tonight if (other["stage"], other["is_replay"]) != (stage, self.is_replay)]
        self.store.put(MANIFESTS, [*others, row], {"run_date": self.date})

    def __enter__(self) -> Night:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.__exit__(kind, error, trace)


def decided(asked: Config, until: date, config: Config | None = None) -> Config:
    """The config asked for, or what has become of it, with what the log has decided of settings nobody has set.

    Up to the night `until`: one that is run again is not decided by what came after it.
    """
    config = config or asked
    if not adaptive.is_open(asked):
        return config
    columns = ["run_date", "fate", "reason", "row_count"]
    books = arrow(config.paths.warehouse, LEDGER, {"stage": CLEAN_EVENTS.stage}, columns)
    return adaptive.adapted(config, [row for row in books.to_pylist() if row["run_date"] <= until], asked)


def parser(about: str) -> argparse.ArgumentParser:
    """The arguments that every job shares, under spark-submit and on the command line."""
    arguments = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--config", required=True, metavar="TOML", help="the deployment's nightrec.toml")
    arguments.add_argument("--date", required=True, type=_date, metavar="YYYY-MM-DD", help="the night")
    arguments.add_argument(
        "--als-model", metavar="ID", help=f"item factors to use; {SAME_DATE} = those trained as of --date"
    )
    arguments.add_argument("--ranker-model", metavar="ID", help="ranker to use")
    arguments.add_argument(
        "--cut", type=int, metavar="N",
        help="rebuild the N-th past night, counted back from the training as of --date, with factors of its own date: "
        "nothing is done where the log does not reach back so far that the training learns from it",
    )  # fmt: skip
    return arguments


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-01-31") from None


def main(job: Callable[[Night], None], argv: Sequence[str] | None = None) -> None:
    """Start a job by its file: arguments, session, one stage, exit code. What `spark-submit jobs/STAGE.py` runs."""
    die_with_parent()
    stage = Path(sys.modules[job.__module__].__file__ or "").stem
    options = parser(sys.modules[job.__module__].__doc__ or stage).parse_args(argv)
    try:
        settings = configuration.load(options.config)
        spark = session(settings.spark, f"nightrec {stage} {options.date}")
        with Night(spark, settings, options.date, options.als_model, options.ranker_model) as night:
            night.decide()
            asked = night.cut(options.cut) if options.cut else night
            books = asked.run(stage, job if asked is night or asked.date in night.training_cuts() else _unreached)
    except Exception as error:
        told = error if isinstance(error, NightrecError) else storage_failed(error)
        if told is None:
            raise
        print(f"{stage} {options.date}: {lines(str(told))}", file=sys.stderr)
        sys.exit(told.exit_code)
    print(
        f"{stage} {books.date}: "
        + one_line(", ".join(f"{fate} {reason} {rows}".replace("  ", " ") for fate, reason, rows in books.lines))
    )
    for sentence in books.said:
        print(one_line(sentence))


def _unreached(night: Night) -> None:
    """In place of a job, for a past night that no training learns from."""
    night.book("skipped", 1, "nothing to replay: the log begins too late")
