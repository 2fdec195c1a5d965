"""Trees of every kind at once: the processes of a Horovod job are dealt to the kinds, and train theirs together.

Two processes, as on a host of two cores, then train a kind each on all examples and say nothing to each other; sharing
each tree instead, they would exchange histograms of 200 KB a node. Where a kind has several processes, each has lists
of its own, and xgboost's collective adds up their histograms.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import horovod.torch as hvd
import numpy as np
import xgboost
from xgboost.tracker import RabitTracker

from nightrec.config import Ranker
from nightrec.launch import own_address
from nightrec.ranker import trees
from nightrec.ranker.checkpoint import NOWHERE, Kept
from nightrec.ranker.dataset import Split

T = TypeVar("T")


def grown(lessons: Split, settings: Ranker, kept: Mapping[str, Kept] | None = None) -> dict[str, bytes]:
    """A model of each kind, trained on all rows; all processes take part and all get all models. A kind that an earlier
    attempt has `kept` is not trained again.

    The same rows give the same trees whatever the number of processes, as long as no kind has more than one of them;
    else the same number gives the same trees.
    """
    kept = kept or dict.fromkeys(trees.KINDS, NOWHERE)
    done = {kind: bytes(state["model"]) for kind in trees.KINDS if (state := kept[kind].loaded())}
    teams = {
        kind: team(number, hvd.rank(), hvd.size()) for number, kind in enumerate(trees.KINDS) if kind not in done
    }
    trackers = {
        kind: RabitTracker(n_workers=of, host_ip=own_address(), sortby="task")
        for kind, (place, of) in teams.items()
        if place == 0 and of > 1
    }
    for tracker in trackers.values():
        tracker.start()
    meeting = _of_all({kind: tracker.worker_args() for kind, tracker in trackers.items()})
    own = dict(done)
    for kind, (place, of) in teams.items():
        if place is not None:
            with _together(meeting.get(kind), place):
                own[kind] = trees.trained(kind, share(lessons, place, of), settings)
            if place == 0:
                kept[kind].keep({"model": np.frombuffer(own[kind], np.uint8)})
    models = _of_all(own)
    return {kind: models[kind] for kind in trees.KINDS}


def _of_all(own: dict[str, T]) -> dict[str, T]:
    """What the processes have, of each key from one of them."""
    found: dict[str, T] = {}
    for told in hvd.allgather_object(own):
        found |= told
    return found


def team(number: int, rank: int, size: int) -> tuple[int | None, int]:
    """This process's place among those that train the kind of a number, None where it is not one; and how many."""
    ranks = [other for other in range(size) if other % len(trees.KINDS) == number % size]
    return ranks.index(rank) if rank in ranks else None, len(ranks)


def share(split: Split, place: int, of: int) -> Split:
    """The rows of one of `of` processes: whole lists, about equally many rows for each."""
    starts = np.append(np.flatnonzero(np.diff(split.lists, prepend=-1)), len(split))
    bounds = starts[np.searchsorted(starts, np.linspace(0, len(split), of + 1).astype(int))]
    return split.part(int(bounds[place]), int(bounds[place + 1]))


@contextmanager
def _together(meeting: dict[str, Any] | None, place: int) -> Iterator[None]:
    """xgboost's collective among the processes that meet there; nowhere: alone."""
    if meeting is None:
        yield
        return
    with redirect_stdout(io.StringIO()):  # each process would tell its rank
        xgboost.collective.init(**meeting, dmlc_task_id=f"{place:06}")
    try:
        yield
    finally:
        xgboost.collective.finalize()
