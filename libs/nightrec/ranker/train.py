"""Training as every Horovod process runs it, read downwards: judge fold by fold, decide, learn from all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nightrec import scratch
from nightrec.config import Ranker
from nightrec.failpoint import reach
from nightrec.features import FEATURES
from nightrec.launch import from_first_of_host
from nightrec.lifeline import progress
from nightrec.ranker import texts
from nightrec.ranker.blend import NETWORK, PLAIN, POPULAR, Blend, chosen, rarer, sigmoid
from nightrec.ranker.checkpoint import Checkpoint
from nightrec.ranker.dataset import Examples, Read, Split, mapped, write
from nightrec.ranker.fit import NDCG_AT, best_epoch, fitted, ndcg, own_rows, scored
from nightrec.ranker.kinds import Kind, learned
from nightrec.ranker.lessons import Lessons
from nightrec.ranker.model import dumped
from nightrec.ranker.steps import has_comparison
from nightrec.ranker.teams import grown
from nightrec.ranker.texts import Texts, Vectors
from nightrec.ranker.trees import KINDS, loaded, margins


@dataclass(frozen=True)
class Trained:
    """What all folds taught: the networks by member (safetensors), and the trees by kind, where the blend has any. Of
    each network the figures of every epoch, and the best one's 1-based number, from the last fold; how all are blended,
    and the NDCG of each blend that could be chosen, pooled over the folds; the kinds of event, and how well calibrated
    each is; and the seconds that network, trees and choosing took."""

    networks: dict[str, bytes]
    trees: Mapping[str, bytes]
    best_epochs: dict[str, int]
    epochs: list[dict[str, Any]]
    blend: Blend
    choices: dict[str, float]
    kinds: dict[str, Kind]
    calibration: list[dict[str, Any]]
    seconds: dict[str, float] = field(compare=False)


@dataclass(frozen=True)
class Judged:
    """A fold, and what members say of it that learned from the folds before: the scores of each (N,). Of each network
    the best epoch, 1-based, and the figures of all."""

    fold: int
    split: Split
    scores: dict[str, npt.NDArray[np.float64]]
    best_epochs: dict[str, int]
    epochs: list[dict[str, Any]]


def train(
    read: Read, settings: Ranker, of_texts: Texts | None, folder: Path | None = None, checkpoint_steps: int = 1
) -> Trained:
    """Train networks and trees in all processes of the running Horovod job, and choose how they are blended; every
    process returns the same.

    `read` gives the examples (see dataset.write), `of_texts` the vectors, where the head reads any. Each fold but the
    first is judged by members that learned from those before it: how they are blended follows from all these folds
    together. What serves then learns from every fold, a network for as many epochs as were best on the last. (Networks
    alone, 268 users of MovieLens: NDCG@10 .227 so, .216 from the folds before the last.)
    What has been learned is kept in `folder`, where given: a training that died goes on from there.
    """
    examples, vectors = splits(read, of_texts if settings.reads_vectors else None)
    checkpoint = Checkpoint.of(folder, checkpoint_steps, settings, examples, vectors)
    ways = _ways(examples, settings)
    seconds: dict[str, float] = {}
    judged = [_judged(examples, fold, ways, vectors, checkpoint, seconds) for fold in examples.windows]
    last = judged[-1]
    with _timed(seconds, "choosing"):
        blend, choices, kinds, calibration = _decided(examples, judged, settings)
    with _timed(seconds, "network"):
        networks = {
            member: dumped(fitted(
                examples.lessons, way, vectors, last.best_epochs[member], kept=checkpoint.kept("all", member)
            )[0])
            for member, way in ways.items()
        }
    trees: dict[str, bytes] = {}
    if any(member in KINDS for member in blend.weight):
        with _timed(seconds, "trees"):
            trees = grown(examples.lessons, settings, {kind: checkpoint.kept("all", kind) for kind in KINDS})
    return Trained(networks, trees, last.best_epochs, last.epochs, blend, choices, kinds, calibration, seconds)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started


def _ways(examples: Examples, settings: Ranker) -> dict[str, Ranker]:
    """The settings of each network by its member's name, with one loss each. Of both, listwise is left out where a fold
    has no list that it could learn from."""
    every = {f"{NETWORK}{loss}": settings.model_copy(update={"loss": loss}) for loss in settings.losses}
    parts = [part for fold in examples.windows for part in (examples.before(fold), examples.of(fold))]
    if len(every) == 1 or all(has_comparison(part) for part in parts):
        return every
    return {member: way for member, way in every.items() if way.loss == "binary"}


def _judged(
    examples: Examples, fold: int, ways: Mapping[str, Ranker], vectors: Vectors | None, checkpoint: Checkpoint,
    seconds: dict[str, float],
) -> Judged:
    """Learn from the folds before one, and score that fold; `seconds` are added to."""
    before, split = examples.before(fold), examples.of(fold)
    scores: dict[str, npt.NDArray[np.floating]] = {}
    best_epochs: dict[str, int] = {}
    epochs: list[dict[str, Any]] = []
    for member, way in ways.items():
        valid = Lessons.of(split, before, way, vectors)
        with _timed(seconds, "network"):
            kept = checkpoint.kept(f"fold-{fold}", member)
            network, curve = fitted(before, way, vectors, way.epochs, valid, kept)
            scores[member] = scored(network, valid)
        best_epochs[member] = best_epoch(curve)
        epochs += [{"network": member, **figures} for figures in curve]
    if way.trees and way.blend != "network":
        with _timed(seconds, "trees"):
            found = grown(before, way, {kind: checkpoint.kept(f"fold-{fold}", kind) for kind in KINDS})
            scores |= {kind: _tree_scores(model, split, kind) for kind, model in found.items()}
    scores |= {name: split.features[:, FEATURES.index(name)] for name in (*PLAIN, POPULAR)}
    return Judged(fold, split, {name: found.astype(np.float64) for name, found in scores.items()}, best_epochs, epochs)


def _tree_scores(model: bytes, split: Split, kind: str) -> npt.NDArray[np.float32]:
    """(N,) scores of trees: every process scores its part, then all hold all."""
    own = own_rows(split)
    scores = torch.from_numpy(margins(loaded(model), np.ascontiguousarray(split.features[own.start : own.stop])))
    gathered: Tensor = hvd.allgather(scores, name=f"valid_{kind}")
    found: npt.NDArray[np.float32] = gathered.float().numpy()
    return found


def _decided(
    examples: Examples, judged: Sequence[Judged], settings: Ranker
) -> tuple[Blend, dict[str, float], dict[str, Kind], list[dict[str, Any]]]:
    """The last four of Trained: blends are chosen on all judged folds, kinds and their calibration on the last."""
    scores = {member: np.concatenate([one.scores[member] for one in judged]) for member in judged[0].scores}
    labels, lists = (np.concatenate([getattr(one.split, name) for one in judged]) for name in ("labels", "lists"))

    def worth(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        progress()
        return ndcg(lists, mean, labels, NDCG_AT)

    best, choices = chosen(scores, labels, worth, settings.blend)
    blend, costs = rarer(best, scores, labels, worth, settings.coverage_price)
    choices |= costs
    last = judged[-1]
    plain = sigmoid(np.mean([last.scores[member] for member in best.weight], axis=0))
    return blend, choices, *learned(examples.before(last.fold), last.split, blend.probabilities(last.scores), plain)


def splits(read: Read, of_texts: Texts | None = None) -> tuple[Examples, Vectors | None]:
    """The examples, and their vectors where asked for, mapped by every process from one set of files per host.

    The first process of a host writes them into the folder for temporary files (TMPDIR; see dataset.write and
    texts.write). Once all have mapped them their names are removed: whatever becomes of the processes then, their space
    is free when the last of them ends. What writing raises is raised where it was called; Horovod tells the others that
    their partner has gone.
    """
    with scratch.folder() if hvd.local_rank() == 0 else nullcontext() as folder:
        if folder:
            keys = write(read(), folder)
            reach("ranker_model.in_examples")
            if of_texts:
                texts.write(of_texts, keys, folder)
        written = from_first_of_host(folder)
        assert written is not None  # it is the host's first process that writes
        found = mapped(written), texts.mapped(written) if of_texts else None
        hvd.barrier()
    return found
