"""A bench on which settings are tried out one after the other: what their lists would have been worth at past cuts.

One warehouse serves all trials. A stage runs again only where settings that its result follows from have changed since
it last ran for that date; what it wrote for the settings before is then removed, so that the warehouse stays as large
as one trial's. Everything is cleaned before the first trial: stages read what had arrived by their date.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from nightrec import adaptive, runner
from nightrec.config import Config
from nightrec.evaluation import judge
from nightrec.metrics import bootstrap
from nightrec.models import als_model_id, ranker_model_id
from nightrec.night import Books, Night
from nightrec.pipeline import LISTING, Stage, stage, training
from nightrec.store import arrow
from nightrec.tables import LEDGER, RUNS, TABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.runner import Watch
    from nightrec.store import Store

# Sections of the config, or settings, that a stage's result follows from, its inputs' included; all other stages run in
# every trial.
SECTIONS: dict[str, tuple[str, ...]] = {
    "item_profiles": ("profiles",),
    "user_profiles": ("profiles",),
    "als_item_factors": ("als",),
    "als_user_factors": ("als",),
    "item_embeddings": ("encoder",),
    "user_embeddings": ("encoder", "profiles"),
    "candidates": ("als", "candidates", "encoder", "lists", "profiles"),
    "ranker_examples": (
        "als", "candidates", "encoder", "lists", "profiles",
        "ranker.horizon_days", "ranker.past_cuts", "ranker.negatives_share", "ranker.seed",
    ),
}  # fmt: skip
_NIGHT = LISTING[1:]
_TRAINED = tuple(stage(name) for name in ("ranker_examples", "ranker_model", "als_item_factors"))
_ALWAYS = tuple(found for found in (*_TRAINED, *_NIGHT) if found.name not in SECTIONS)
NDCG = "ndcg"


def follows_from(stage: str, config: Config) -> str:
    """The settings that a stage's result follows from, as text."""
    values = config.model_dump(mode="json")
    values |= {f"ranker.{name}": value for name, value in values["ranker"].items()}
    return json.dumps({name: values[name] for name in SECTIONS[stage]}, sort_keys=True)


@dataclass
class Bench:
    """Trials at `cuts`, each judged by the `days` after it. `config` is `protocol.apart`'s; a trial's differs from it
    in sections of SECTIONS and in the ranker's settings.

    `books`: what the log showed by the first cut. `made`: for stage and date, the settings that its rows follow from,
    and whether a replay made them.
    """

    spark: SparkSession
    config: Config
    cuts: list[date]
    days: int
    watch: Watch
    tell: Callable[[Books], None]
    books: list[Mapping[str, Any]] = field(default_factory=list)
    made: dict[tuple[str, date], tuple[str, bool]] = field(default_factory=dict)
    logs: dict[date, judge.Log] = field(default_factory=dict)

    def prepare(self, *, afresh: bool) -> None:
        """Clean all that will be judged, first what had arrived by the first cut: by that the log decides its settings.
        `afresh` without what an earlier study left, but for its runs."""
        with Night(self.spark, self.config, self.cuts[-1] + timedelta(days=self.days)) as last:
            if afresh:
                self.made.clear()
                for table in TABLES:
                    if table is not RUNS:
                        last.store.clear(table)
            for night in (last.at(self.cuts[0]), last):
                self._run(night, stage("clean_events"))
            books = arrow(last.store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
            self.books = [row for row in books if row["run_date"] <= self.cuts[0]]

    def ndcg(self, config: Config) -> list[bootstrap.Resampled]:
        """The NDCG at K of the lists with these settings, a figure named NDCG per cut."""
        # Before models are named: their ids follow from what the log decides too.
        config = adaptive.adapted(config, self.books)
        found = []
        for cut in self.cuts:
            models = als_model_id(cut, config), ranker_model_id(cut, config)
            with Night(self.spark, config, cut, *models, warm=True) as night:
                if cut == self.cuts[0]:
                    self._clear(night.store, config)
                self._lists(night)
                if cut not in self.logs:
                    # Nothing that is tried changes what users did, or what is on offer.
                    offered = judge.offered(night)["item_id"].combine_chunks()
                    self.logs[cut] = judge.Log.of(night, self.days, offered)
                found.append(judge.ndcg(night, self.logs[cut], NDCG))
        return found

    def _clear(self, store: Store, config: Config) -> None:
        """Remove what follows from other settings than these."""
        stale = {name for (name, _), (settings, _) in self.made.items() if settings != follows_from(name, config)}
        self.made = {key: value for key, value in self.made.items() if key[0] not in stale}
        written = {table for name in stale for table in stage(name).writes}
        written |= {table for found in _ALWAYS for table in found.writes}
        for table in TABLES:
            if table.name in written:
                store.clear(table)

    def _lists(self, night: Night) -> None:
        """Train and run the night up to ranked_topk."""
        cuts = night.training_cuts()
        for step in training(night.config.ranker.past_cuts):
            past = night.cut(step.cut)
            if step.cut and past.date in cuts:
                self._make(past, step.stage)
        for found in (*_TRAINED, *_NIGHT):
            self._make(night, found)

    def _make(self, night: Night, stage: Stage) -> None:
        if stage.name not in SECTIONS:
            self._run(night, stage)
            return
        settings, key = follows_from(stage.name, night.config), (stage.name, night.date)
        before, by_replay = self.made.get(key, ("", False))
        # A replay makes candidates for users alone: less than a night asks for.
        if before != settings or (by_replay and not night.is_replay):
            self._run(night, stage)
            self.made[key] = settings, night.is_replay

    def _run(self, night: Night, stage: Stage) -> None:
        with self.watch(f"{stage.name} {night.date}"):
            books = runner.run_stage(night, stage)
        self.tell(books)
