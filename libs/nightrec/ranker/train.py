"""The training loop, read downwards: data, model, step, evaluate, keep the best.

Every Horovod process runs `train`. They differ in nothing but which rows of a step they take: the order of the
examples and the dropout mask of each follow from one seed, so 1 and 2 processes walk the same path.
A host without a GPU averages gradients over gloo; one with CUDA trains on the GPU of its local rank, over NCCL where
Horovod was built with HOROVOD_GPU_OPERATIONS=NCCL.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nightrec.config import Ranker
from nightrec.features import FEATURES
from nightrec.launch import from_first_of_host
from nightrec.ranker import losses, texts
from nightrec.ranker.blend import PLAIN, Blend, chosen, sigmoid
from nightrec.ranker.dataset import Read, Split, mapped_splits, write
from nightrec.ranker.heads import Head, made
from nightrec.ranker.kinds import Kind, learned
from nightrec.ranker.lessons import Batch, Lessons
from nightrec.ranker.model import DropoutMasks, dumped, flattened
from nightrec.ranker.texts import Texts, Vectors
from nightrec.ranker.trees import loaded, margins

# Lists are judged by their first ten places, whatever their length.
NDCG_AT = 10
# Examples whose intermediate results stay in a core's cache: scoring 65,536 at once took four times as long.
_BLOCK = 4_096
# Examples whose loss is summed at once: each positive makes pairs with all others of its list.
_TOGETHER = 65_536


@dataclass(frozen=True)
class Trained:
    """The network's weights of the best epoch (safetensors), its 1-based number, and the figures of every epoch; how it
    is blended with the trees, and the NDCG on the valid split of each blend that could be chosen; the kinds of event,
    and how well calibrated each is; the seconds that choosing and calibrating took."""

    network: bytes
    best_epoch: int
    epochs: list[dict[str, Any]]
    blend: Blend
    choices: dict[str, float]
    kinds: dict[str, Kind]
    calibration: list[dict[str, Any]]
    choosing_s: float


def train(read: Read, settings: Ranker, trees: Mapping[str, bytes], of_texts: Texts | None) -> Trained:
    """Train one network in all processes of the running Horovod job, and choose how it and `trees` (by kind, trained on
    the train split) are blended; every process returns the same.

    `read` gives the examples (see dataset.write), `of_texts` the vectors, where the head reads any. Steps per epoch are
    equal on every process by construction: they all cut the same order of the epoch into the same steps, and these into
    a part for each (see steps.Units). A step's loss is over all its examples, whatever part of them a process has.
    Stops after `patience` epochs without a lower loss on the valid split, which lies later in time, and keeps the
    weights of the lowest.
    """
    torch.manual_seed(settings.seed)
    device = _device()

    # data
    train_split, valid_split, vectors = splits(read, of_texts if settings.reads_vectors else None)
    train_set, valid_set = (Lessons.of(split, train_split, settings, vectors) for split in (train_split, valid_split))
    masks = DropoutMasks(settings.hidden, settings.dropout, settings.seed + 1)

    # model
    mean, std = (torch.from_numpy(values).float() for values in train_split.scale())
    # Only a binary loss makes odds of what it sees, and can tell how they were changed by leaving out negatives.
    shift = math.log(settings.negatives_share) if settings.loss in ("binary", "both") else 0.0
    width = vectors.width if vectors else 0
    network = made(settings, mean, std, torch.tensor(shift), width).to(device)
    if settings.loss == "squared":
        network.start_at(train_set.mean_target)
    hvd.broadcast_parameters(network.state_dict(), root_rank=0)
    weights, gradient = flattened(network)
    optimizer = torch.optim.AdamW(
        [weights], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )

    epochs: list[dict[str, Any]] = []
    best_epoch, best = 0, weights.detach().clone()
    for epoch in range(1, settings.epochs + 1):
        # step
        network.train()
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(train_set.units.starts))
        batches = _batches(train_set, order, settings.batch, masks, device)
        total, steps = torch.zeros((), device=device), 0
        taken = next(batches, None)
        while taken:
            loss = taken.loss(network.scores(taken.given, *taken.dropped), hvd.size())
            penalty = network.penalty(settings)
            gradient.zero_()
            (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
            total, steps = total + loss.detach(), steps + 1
            # While the gradients are on their way, the next batch is gathered.
            sent = hvd.allreduce_async_(gradient, name="gradient") if hvd.size() > 1 else None
            taken = next(batches, None)
            if sent is not None:
                hvd.synchronize(sent)
            optimizer.step()

        # evaluate
        train_loss = float(hvd.allreduce(total / steps, name="train_loss"))
        valid_loss, valid_ndcg = evaluate(network, valid_set, device)
        epochs.append({"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss, "valid_ndcg": valid_ndcg})

        # keep the best
        if not best_epoch or valid_loss < epochs[best_epoch - 1]["valid_loss"]:
            best_epoch, best = epoch, weights.detach().clone()
        if epoch - best_epoch >= settings.patience:
            break

    weights.data.copy_(best)
    started = time.perf_counter()
    decided = _blended(network, train_split, valid_set, trees, device, settings.blend)
    return Trained(dumped(network), best_epoch, epochs, *decided, time.perf_counter() - started)


def _blended(
    network: Head,
    train_split: Split,
    valid_set: Lessons,
    trees: Mapping[str, bytes],
    device: torch.device,
    asked: str,
) -> tuple[Blend, dict[str, float], dict[str, Kind], list[dict[str, Any]]]:
    """The last of Trained but their time, decided and calibrated on the valid split."""
    valid_split = valid_set.split
    found = {"network": _scores(network, valid_set, device)}
    found |= {kind: _tree_scores(model, valid_split, kind) for kind, model in trees.items()}
    found |= {name: valid_split.features[:, FEATURES.index(name)] for name in PLAIN}
    scores = {member: values.astype(np.float64) for member, values in found.items()}
    blend, choices = chosen(
        scores,
        valid_split.labels,
        lambda mean: ndcg(valid_split.lists, mean, valid_split.labels, NDCG_AT),
        asked,
    )
    plain = sigmoid(np.mean([scores[member] for member in blend.weight], axis=0))
    return blend, choices, *learned(train_split, valid_split, blend.probabilities(scores), plain)


def splits(read: Read, of_texts: Texts | None = None) -> tuple[Split, Split, Vectors | None]:
    """The train and the valid split, and the vectors of both where asked for, mapped by every process from one set of
    files per host.

    The first process of a host writes them into the folder for temporary files (TMPDIR; see dataset.write and
    texts.write). Once all have mapped them their names are removed: whatever becomes of the processes, their space is
    free when the last of them ends. What writing raises is raised where it was called; Horovod tells the others that
    their partner has gone.
    """
    folder = Path(tempfile.mkdtemp(prefix="nightrec-examples-")) if hvd.local_rank() == 0 else None
    try:
        if folder:
            keys = write(read(), folder)
            if of_texts:
                texts.write(of_texts, keys, folder)
        written = from_first_of_host(folder)
        assert written is not None  # it is the host's first process that writes
        mapped = *mapped_splits(written), texts.mapped(written) if of_texts else None
        hvd.barrier()
    finally:
        if folder:
            shutil.rmtree(folder)
    return mapped


def _batches(
    lessons: Lessons, order: npt.NDArray[np.int64], batch: int, masks: DropoutMasks, device: torch.device
) -> Iterator[Batch]:
    """This process's part of every step of an epoch, with a dropout mask per row."""
    for step in lessons.units.steps(batch, order, hvd.rank(), hvd.size()):
        dropped = [mask.to(device) for mask in masks.draw(step.place, step.rows_of_all)]
        yield Batch(lessons, step, lessons.given(step.rows).to(device), dropped)


def _device() -> torch.device:
    """The GPU of this process among those of its host; without CUDA one core, for every core has its process."""
    if torch.cuda.is_available():
        torch.cuda.set_device(hvd.local_rank())
        return torch.device("cuda", hvd.local_rank())
    torch.set_num_threads(1)
    return torch.device("cpu")


def evaluate(network: Head, lessons: Lessons, device: torch.device) -> tuple[float, float]:
    """Loss and NDCG over a split: every process scores its part, then all hold all scores and so decide alike."""
    scores = _scores(network, lessons, device)
    exact = torch.from_numpy(scores).double()
    found, weight, rows = [0.0, 0.0], 0.0, 0
    for step in lessons.units.steps(_TOGETHER, np.arange(len(lessons.units.starts))):
        found = [total + float(part) for total, part in zip(found, lessons.sums(exact[step.rows], step), strict=False)]
        weight, rows = weight + step.weight_of_all, rows + step.rows_of_all
    sizes = losses.sizes(lessons.loss, rows, weight)
    loss = float(np.mean([total / size for total, size in zip(found, sizes, strict=True)]))
    by_list = ndcg(lessons.split.lists, scores, lessons.split.labels, NDCG_AT)
    return loss, float(by_list.mean()) if len(by_list) else 0.0


def _scores(network: Head, lessons: Lessons, device: torch.device) -> npt.NDArray[np.float32]:
    """(N,) scores: every process scores its part, then all hold all."""
    network.eval()
    part = _part(lessons.split)
    blocks = [np.arange(start, min(start + _BLOCK, part.stop)) for start in range(part.start, part.stop, _BLOCK)]
    with torch.no_grad():
        scores = [network.scores(lessons.given(rows).to(device)).cpu() for rows in blocks] or [torch.empty(0)]
    gathered: Tensor = hvd.allgather(torch.cat(scores), name="valid_scores")
    found: npt.NDArray[np.float32] = gathered.numpy()
    return found


def _tree_scores(model: bytes, split: Split, kind: str) -> npt.NDArray[np.float32]:
    """(N,) scores of trees, likewise."""
    part = _part(split)
    scores = torch.from_numpy(margins(loaded(model), np.ascontiguousarray(split.features[part.start : part.stop])))
    gathered: Tensor = hvd.allgather(scores, name=f"valid_{kind}")
    found: npt.NDArray[np.float32] = gathered.float().numpy()
    return found


def _part(split: Split) -> range:
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
