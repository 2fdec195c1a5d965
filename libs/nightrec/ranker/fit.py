"""The loop that teaches one network, read downwards: data, model, step, evaluate, keep the best.

Every Horovod process runs `fitted`. They differ in nothing but which rows of a step they take: the order of the
examples and the dropout mask of each follow from one seed, so 1 and 2 processes walk the same path.
They train on GPUs where each has one of its own, else on CPUs. Gradients are averaged over gloo; those of GPUs over
NCCL, where Horovod was built with HOROVOD_GPU_OPERATIONS=NCCL.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nightrec import gpu
from nightrec.config import Ranker
from nightrec.failpoint import reach
from nightrec.lifeline import progress
from nightrec.ranker import losses
from nightrec.ranker.checkpoint import NOWHERE, Kept
from nightrec.ranker.dataset import Split
from nightrec.ranker.heads import Attentive, Head, made
from nightrec.ranker.lessons import Batch, Lessons
from nightrec.ranker.model import DropoutMasks, flattened
from nightrec.ranker.standing import Standing
from nightrec.ranker.steps import WITHIN_LISTS
from nightrec.ranker.texts import Vectors

# Lists are judged by their first ten places, whatever their length.
NDCG_AT = 10
# Examples whose intermediate results stay in a core's cache: scoring 65,536 at once took four times as long.
_BLOCK = 4_096
# Examples whose loss is summed at once: each positive makes pairs with all others of its list.
_TOGETHER = 65_536


def fitted(
    split: Split,
    settings: Ranker,
    vectors: Vectors | None,
    epochs: int,
    valid: Lessons | None = None,
    kept: Kept = NOWHERE,
) -> tuple[Head, list[dict[str, Any]]]:
    """A network that learned from a split, and the figures of its epochs on `valid`: of so many epochs; with `valid`,
    until its loss there has not been lower for `patience` of them, and with the weights of the lowest.

    Steps per epoch are equal on every process by construction: they all cut the same order of the epoch into the same
    steps, and these into a part for each (see steps.Units). A step's loss is over all its examples, whatever part of
    them a process has. Where an earlier attempt was `kept`, this one goes on from its last checkpoint.
    """
    torch.manual_seed(settings.seed)
    device = _device()

    # data
    lessons = Lessons.of(split, split, settings, vectors)

    # model
    mean, std = (torch.from_numpy(values).float() for values in split.scale())
    # Only a binary loss makes odds of what it sees, and can tell how they were changed by leaving out negatives.
    shift = math.log(settings.negatives_share) if settings.loss == "binary" else 0.0
    width = vectors.width if vectors else 0
    network = made(settings, mean, std, torch.tensor(shift), width).to(device)
    if settings.loss == "squared":
        network.constant.data.fill_(lessons.mean_target)
    # Within lists a constant changes nothing: rounding errors alone would move it, by a learning rate a step.
    network.constant.requires_grad_(settings.loss not in WITHIN_LISTS)
    hvd.broadcast_parameters(network.state_dict(), root_rank=0)
    weights, gradient = flattened(network)
    optimizer = torch.optim.AdamW(
        [weights], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )

    # where it stands: what an earlier attempt kept, or the beginning
    standing = Standing(weights, optimizer, kept)
    curve = standing.curve
    masks = DropoutMasks(settings.hidden, settings.dropout, settings.seed + 1, standing.rows)
    while (epoch := standing.epoch) <= epochs and not is_enough(curve, settings):
        # step
        network.train()
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(lessons.units.starts))
        batches = _batches(lessons, order, settings.batch, masks, device, standing.steps)
        taken = next(batches, None)
        while taken:
            loss = taken.loss(network.scores(taken.given, *taken.dropped), hvd.size())
            penalty = network.penalty(settings)
            gradient.zero_()
            (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
            standing.went(taken.step.rows_of_all, loss.detach())
            # While the gradients are on their way, the next batch is gathered.
            sent = hvd.allreduce_async_(gradient, name="gradient") if hvd.size() > 1 else None
            taken = next(batches, None)
            if sent is not None:
                hvd.synchronize(sent)
            optimizer.step()
            progress()
            reach("ranker_model.step")
            if taken and standing.steps % kept.steps == 0:
                standing.keep()

        # evaluate
        if valid is not None:
            train_loss = float(hvd.allreduce(standing.total / standing.steps, name="train_loss"))
            valid_loss, valid_ndcg = evaluate(network, valid)
            curve.append({"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss, "valid_ndcg": valid_ndcg})

        # keep the best
        if valid is None or best_epoch(curve) == epoch:
            standing.best = weights.detach().clone()
        standing.begin(epoch + 1)
        standing.keep()
    weights.data.copy_(standing.best)
    return network, curve


def is_enough(curve: Sequence[Mapping[str, Any]], settings: Ranker) -> bool:
    """Whether the loss has not been lower for `patience` epochs."""
    return bool(curve) and len(curve) - best_epoch(curve) >= settings.patience


def best_epoch(curve: Sequence[Mapping[str, Any]]) -> int:
    """The 1-based number of the epoch with the lowest loss, of equal ones the first."""
    return min(range(len(curve)), key=lambda number: curve[number]["valid_loss"]) + 1


def _batches(
    lessons: Lessons, order: npt.NDArray[np.int64], batch: int, masks: DropoutMasks, device: torch.device, gone: int
) -> Iterator[Batch]:
    """This process's part of every step of an epoch but the first `gone`, with a dropout mask per row."""
    for step in itertools.islice(lessons.units.steps(batch, order, hvd.rank(), hvd.size()), gone, None):
        dropped = [mask.to(device) for mask in masks.draw(step.place, step.rows_of_all)]
        yield Batch(lessons, step, lessons.given(step.rows).to(device), dropped)


def _device() -> torch.device:
    """The GPU of this process, where all have one that no other has; else one core, for every core has its process.

    All processes take part and decide alike.
    """
    own = gpu.own(hvd.local_rank())
    told = hvd.allgather_object(None if own is None else gpu.identity(own), name="gpus")
    if own is not None and gpu.each_has_its_own(told):
        torch.cuda.set_device(own)
        return torch.device("cuda", own)
    torch.set_num_threads(1)
    return torch.device("cpu")


def evaluate(network: Head, lessons: Lessons) -> tuple[float, float]:
    """Loss and NDCG over a split: every process scores its part, then all hold all scores and so decide alike."""
    found = scored(network, lessons)
    exact = torch.from_numpy(found).double()
    total, weight, rows = 0.0, 0.0, 0
    for step in lessons.units.steps(_TOGETHER, np.arange(len(lessons.units.starts))):
        progress()
        total += float(lessons.total(exact[step.rows], step))
        weight, rows = weight + step.weight_of_all, rows + step.rows_of_all
    loss = total / losses.size(lessons.loss, rows, weight)
    by_list = ndcg(lessons.split.lists, found, lessons.split.labels, NDCG_AT)
    return loss, float(by_list.mean()) if len(by_list) else 0.0


def scored(network: Head, lessons: Lessons) -> npt.NDArray[np.float32]:
    """(N,) scores: every process scores its part, then all hold all."""
    network.eval()
    if isinstance(network, Attentive) and lessons.vectors is not None:
        # Once per text, not with each example.
        lessons = replace(lessons, vectors=lessons.vectors.keys(network.attention.detach()))
        network = network.by_keys()
    device, own = next(network.parameters()).device, own_rows(lessons.split)
    blocks = [np.arange(start, min(start + _BLOCK, own.stop)) for start in range(own.start, own.stop, _BLOCK)]
    with torch.no_grad():
        scores = [_scored(network, lessons, rows, device) for rows in blocks] or [torch.empty(0)]
    gathered: Tensor = hvd.allgather(torch.cat(scores), name="valid_scores")
    found: npt.NDArray[np.float32] = gathered.numpy()
    return found


def _scored(network: Head, lessons: Lessons, rows: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    progress()
    return network.scores(lessons.given(rows).to(device)).cpu()


def own_rows(split: Split) -> range:
    """The rows that this process scores."""
    bounds = np.linspace(0, len(split), hvd.size() + 1).astype(int)
    return range(bounds[hvd.rank()], bounds[hvd.rank() + 1])


def ndcg(
    lists: npt.NDArray[np.int32], scores: npt.NDArray[np.floating], labels: npt.NDArray[np.float32], k: int,
) -> npt.NDArray[np.float64]:
    """NDCG@k of each list with a positive among the examples, in order of the lists' numbers. All arguments are (N,).

    Binary relevance, discount 1/log2(rank + 1), ideal over min(k, positives) (Järvelin & Kekäläinen 2002, "Cumulated
    gain-based evaluation of IR techniques"). Equal scores keep the order of the rows.
    """
    order = np.lexsort((-scores, lists))
    _, first, number = np.unique(lists[order], return_index=True, return_inverse=True)
    place = np.arange(len(order)) - first[number]
    discount = 1 / np.log2(np.arange(k) + 2)
    gain = np.where(place < k, labels[order] * discount[np.minimum(place, k - 1)], 0)
    positives = np.bincount(number, weights=labels[order]).astype(int)
    ideal = np.cumsum(discount)[np.clip(positives, 1, k) - 1]
    judged = positives > 0
    found: npt.NDArray[np.float64] = (np.bincount(number, weights=gain) / ideal)[judged]
    return found
