"""A whole night, or a whole training, in one warm session: the stages of `pipeline.py` one after another."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import import_module

from nightrec import models
from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.night import Books, Night, decided
from nightrec.past.manifest import Manifests
from nightrec.past.undo import served
from nightrec.pipeline import NIGHT, Stage, training
from nightrec.session import wake_workers
from nightrec.store import partitions
from nightrec.tables import NIGHT_MODELS, PUBLISHED_TOPK, RANKER_MODELS

# Called with a stage's label when it starts; the context it returns ends with the stage.
Watch = Callable[[str], AbstractContextManager[object]]
# Called with a sentence of what is skipped, and why the rest is not.
Tell = Callable[[str], object]


def run_stage(night: Night, stage: Stage) -> Books:
    """Run one stage of a night by its job file's function."""
    return night.run(stage.name, import_module(f"nightrec_jobs.{stage.name}").run)


@dataclass(frozen=True)
class Standing:
    """How far a night has come: the stages that are done, the next one and why it is to be done; '' after the last."""

    done: tuple[str, ...]
    following: str
    why: str

    def told(self, night: date) -> str:
        """In a sentence; '' where nothing is done."""
        if not self.done:
            return ""
        if not self.following:
            return f"night {night}: all {len(self.done)} stages are done, of what lies there now; nothing is left"
        skipped = self.done[0] if len(self.done) == 1 else f"{self.done[0]} to {self.done[-1]}"
        return f"night {night}: {skipped} done before, skipped; goes on with {self.following}: {self.why}"


def standing(asked: Config, night: date, named: Mapping[str, str], since: str | None = None) -> Standing:
    """How far a night has come by its manifests, without Spark. From the stage `since` on nothing counts as done.

    `asked` is the config as it was loaded, `named` the models named for the night (Night.named). Raises UsageError
    where `since` is no stage of a night.
    """
    if since and since not in (names := [stage.name for stage in NIGHT]):
        raise UsageError(f"--from {since}: a night's stages are {', '.join(names)}")
    past, settled = Manifests(asked.paths.warehouse, asked.paths.raw), decided(asked, night)
    done: list[str] = []
    for stage in NIGHT:
        config = asked if stage is NIGHT[0] else settled
        why = "as asked" if stage.name == since else past.changed(stage.name, night, config, named)
        if not why and stage.name == PUBLISHED_TOPK.stage and (now := served(asked.paths.warehouse)):
            # A later night's lists are not this one's to replace.
            why = f"the lists of {now.night} are served" if now.night < night else None
        if why:
            return Standing(tuple(done), stage.name, why)
        done.append(stage.name)
    return Standing(tuple(done), "", "")


def steps(night: Night, replayed: Container[date] = ()) -> list[tuple[str, Night, Stage]]:
    """The steps of a training as of the night's date: a label, the night to run it for, and the stage.

    Past nights are those that the training learns from, but those of the dates `replayed`.
    """
    cuts, found = night.training_cuts(), []
    for step in training(night.config.ranker.past_cuts):
        past = night.cut(step.cut) if step.cut else night.at(night.date)
        if not step.cut:
            found.append((step.label, past, step.stage))
        elif past.date in cuts and past.date not in replayed:
            found.append((f"{step.stage.name} {past.date}", past, step.stage))
    return found


def train(
    night: Night, watch: Watch, replayed: Container[date] = (), tell: Tell | None = None
) -> Iterator[Books]:
    """Train as of the night's date: rebuild past cuts, learn from them, factorize anew. Events are clean by then.

    Past nights of the dates `replayed` are not rebuilt: a replay with the same settings is there. With `tell`, which is
    told of it, a training that died is taken up at its first step that has not committed.
    """
    todo = steps(night, replayed)
    if tell and (done := _done(todo)):
        tell(f"training as of {night.date}: {done} of {len(todo)} steps done before, skipped")
        todo = todo[done:]
    yield from _each(todo, watch)


def replay(night: Night, watch: Watch, replayed: Container[date] = ()) -> Iterator[Books]:
    """Rebuild the past nights that a training as of the night's date learns from, but those of the dates `replayed`."""
    yield from _each([step for step in steps(night, replayed) if step[1].is_replay], watch)


def _each(todo: Sequence[tuple[str, Night, Stage]], watch: Watch) -> Iterator[Books]:
    for label, night, stage in todo:
        with watch(label):
            books = run_stage(night, stage)
        yield books


def _done(todo: Sequence[tuple[str, Night, Stage]]) -> int:
    """How many steps of a training, from its first, are done and from what lies there now."""
    past = Manifests(todo[0][1].store.warehouse, todo[0][1].config.paths.raw)
    for place, (_, night, stage) in enumerate(todo):
        if past.changed(stage.name, night.date, night.settled(stage.name), {}, night.is_replay):
            return place
    return len(todo)


def is_untrained(night: Night) -> bool:
    """Whether the night has to train first: there is no model, or the first evening's training was broken off.

    It writes its item factors last: until then a night would find those of the past nights that it rebuilt.
    """
    warehouse = night.store.warehouse
    if not all(models.newest(warehouse, kind, night.date) for kind in ("als", "ranker")):
        return True
    past, eve = Manifests(warehouse, night.config.paths.raw), night.date - timedelta(days=1)
    is_first = not partitions(warehouse, NIGHT_MODELS)
    # By the ranker itself, not its manifest: a run killed between the two was taken for a training that was done.
    is_begun = any(part["as_of_date"] == eve.isoformat() for part in partitions(warehouse, RANKER_MODELS))
    return is_first and is_begun and not past.row("als_item_factors", eve)


def run(night: Night, watch: Watch, since: str | None = None, tell: Tell = str) -> Iterator[Books]:
    """Run the night's stages in order, from the first that is not done on, or from `since`; `tell` hears what is not.

    Trains as of the day before where no model exists yet.
    """
    before = standing(night.asked, night.date, night.named, since)
    if sentence := before.told(night.date):
        tell(sentence)
    clean, *rest = NIGHT
    if clean.name not in before.done:
        with watch(clean.name):
            books = run_stage(night, clean)
        yield books
    else:
        night.decide()
    if not before.following:
        return
    # Not before: the first stage has both cores busy with compiling itself.
    wake_workers(night.spark)
    if is_untrained(night):
        yield from train(night.at(night.date - timedelta(days=1)), watch, tell=tell)
    for stage in rest:
        if stage.name not in before.done:
            with watch(stage.name):
                books = run_stage(night, stage)
            yield books
