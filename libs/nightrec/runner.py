"""A whole night, or a whole training, in one warm session: the stages of `pipeline.py` one after another."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager
from datetime import date, timedelta
from importlib import import_module

from nightrec import models
from nightrec.night import Books, Night
from nightrec.pipeline import NIGHT, Stage, training
from nightrec.session import wake_workers

# Called with a stage's label when it starts; the context it returns ends with the stage.
Watch = Callable[[str], AbstractContextManager[object]]


def run_stage(night: Night, stage: Stage) -> Books:
    """Run one stage of a night by its job file's function."""
    return night.run(stage.name, import_module(f"nightrec_jobs.{stage.name}").run)


def train(night: Night, watch: Watch, replayed: Container[date] = ()) -> Iterator[Books]:
    """Train as of the night's date: rebuild past cuts, learn from them, factorize anew. Events are clean by then.

    Past nights of the dates `replayed` are not rebuilt: a replay with the same settings is there.
    """
    yield from replay(night, watch, replayed)
    for step in training(night.config.ranker.past_cuts):
        if not step.cut:
            with watch(step.label):
                books = run_stage(night.at(night.date), step.stage)
            yield books


def replay(night: Night, watch: Watch, replayed: Container[date] = ()) -> Iterator[Books]:
    """Rebuild the past nights that a training as of the night's date learns from, but those of the dates `replayed`."""
    cuts = night.training_cuts()
    for step in training(night.config.ranker.past_cuts):
        past = night.cut(step.cut)
        if step.cut and past.date in cuts and past.date not in replayed:
            with watch(f"{step.stage.name} {past.date}"):
                books = run_stage(past, step.stage)
            yield books


def run(night: Night, watch: Watch) -> Iterator[Books]:
    """Run the night, every stage in order; train as of the day before where no model exists yet."""
    clean, *rest = NIGHT
    with watch(clean.name):
        books = run_stage(night, clean)
    yield books
    # Not before: the first stage has both cores busy with compiling itself.
    wake_workers(night.spark)
    if not all(models.newest(night.store.warehouse, kind, night.date) for kind in ("als", "ranker")):
        yield from train(night.at(night.date - timedelta(days=1)), watch)
    for stage in rest:
        with watch(stage.name):
            books = run_stage(night, stage)
        yield books
