"""The training loop, read downwards: data, model, step, evaluate, keep the best.

Every Horovod process runs `train`. They differ in nothing but which rows of a batch they take: the order of the
examples and the dropout mask of each follow from one seed, so 1 and 2 processes walk the same path.
A host without a GPU averages gradients over gloo; one with CUDA trains on the GPU of its local rank, over NCCL where
Horovod was built with HOROVOD_GPU_OPERATIONS=NCCL.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from nightrec.config import Ranker
from nightrec.errors import UsageError
from nightrec.features import FEATURES
from nightrec.launch import from_first_of_host
from nightrec.ranker.blend import PLAIN, Blend, chosen
from nightrec.ranker.dataset import Read, Split, mapped_splits, write
from nightrec.ranker.model import DropoutMasks, Network, dumped, flattened
from nightrec.ranker.trees import loaded, margins

# Lists are judged by their first ten places, whatever their length.
NDCG_AT = 10
# Examples whose intermediate results stay in a core's cache: scoring 65,536 at once took four times as long.
_BLOCK = 4_096


@dataclass(frozen=True)
class Trained:
    """The network's weights of the best epoch (safetensors), its 1-based number, and the figures of every epoch; how it
    is blended with the trees, and the NDCG on the valid split of each blend that could be chosen."""

    network: bytes
    best_epoch: int
    epochs: list[dict[str, Any]]
    blend: Blend
    choices: dict[str, float]


def train(read: Read, settings: Ranker, trees: Mapping[str, bytes]) -> Trained:
    """Train one network in all processes of the running Horovod job, and choose how it and `trees` (by kind, trained on
    the train split) are blended; every process returns the same.

    `read` gives the examples (see dataset.write). Steps per epoch are equal on every process by construction: step s
    takes rows s*B to (s+1)*B of the epoch's order, which wraps around at its end, and rank r the r-th slice of them.
    `settings.batch` must divide by the number of processes. Stops after `patience` epochs without a lower loss on the
    valid split, which lies later in time, and keeps the weights of the lowest.
    """
    if settings.batch % hvd.size():
        raise UsageError(f"ranker.batch = {settings.batch} does not divide by horovod.processes = {hvd.size()}")
    torch.manual_seed(settings.seed)
    device = _device()

    # data
    train_split, valid_split = splits(read)
    steps = math.ceil(len(train_split) / settings.batch)
    share = settings.batch // hvd.size()
    mine = range(hvd.rank() * share, (hvd.rank() + 1) * share)
    masks = DropoutMasks(settings.hidden, settings.dropout, settings.batch, mine, settings.seed + 1)

    # model
    mean, std = (torch.from_numpy(values).float() for values in train_split.scale())
    network = Network(mean, std, torch.tensor(math.log(settings.negatives_share)), settings.hidden).to(device)
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
        batches = _batches(train_split, settings, epoch, mine, masks, device)
        total = torch.zeros((), device=device)
        taken = next(batches, None)
        while taken:
            features, labels, dropped = taken
            loss = functional.binary_cross_entropy_with_logits(network(features, dropped), labels)
            gradient.zero_()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            # While the gradients are on their way, the next batch is gathered.
            sent = hvd.allreduce_async_(gradient, name="gradient") if hvd.size() > 1 else None
            taken = next(batches, None)
            if sent is not None:
                hvd.synchronize(sent)
            optimizer.step()

        # evaluate
        train_loss = float(hvd.allreduce(total / steps, name="train_loss"))
        valid_loss, valid_ndcg = evaluate(network, valid_split, device)
        epochs.append({"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss, "valid_ndcg": valid_ndcg})

        # keep the best
        if not best_epoch or valid_loss < epochs[best_epoch - 1]["valid_loss"]:
            best_epoch, best = epoch, weights.detach().clone()
        if epoch - best_epoch >= settings.patience:
            break

    weights.data.copy_(best)
    scores = {"network": _scores(network, valid_split, device)}
    scores |= {kind: _tree_scores(model, valid_split, kind) for kind, model in trees.items()}
    scores |= {name: valid_split.features[:, FEATURES.index(name)] for name in PLAIN}
    blend, choices = chosen(
        {member: found.astype(np.float64) for member, found in scores.items()},
        valid_split.labels,
        lambda mean: ndcg(valid_split.users, mean, valid_split.labels, NDCG_AT),
        settings.blend,
    )
    return Trained(dumped(network), best_epoch, epochs, blend, choices)


def splits(read: Read) -> tuple[Split, Split]:
    """The train and the valid split, mapped by every process from one file per host.

    The first process of a host writes it into the folder for temporary files (TMPDIR; see dataset.write). Once all have
    mapped it its name is removed: whatever becomes of the processes, its space is free when the last of them ends.
    What `dataset.write` raises is raised where it was called; Horovod tells the others that their partner has gone.
    """
    folder = Path(tempfile.mkdtemp(prefix="nightrec-examples-")) if hvd.local_rank() == 0 else None
    try:
        if folder:
            write(read(), folder)
        written = from_first_of_host(folder)
        assert written is not None  # it is the host's first process that writes
        mapped = mapped_splits(written)
        hvd.barrier()
    finally:
        if folder:
            shutil.rmtree(folder)
    return mapped


Batch = tuple[Tensor, Tensor, list[Tensor]]


def _batches(
    split: Split, settings: Ranker, epoch: int, mine: range, masks: DropoutMasks, device: torch.device
) -> Iterator[Batch]:
    """Features, labels and dropout masks of this process's rows, step by step of an epoch."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(split))
    steps = math.ceil(len(split) / settings.batch)
    order = np.resize(order, steps * settings.batch)  # repeats from its start
    for start in range(0, len(order), settings.batch):
        rows = order[start + mine.start : start + mine.stop]
        features, labels = torch.from_numpy(split.features[rows]), torch.from_numpy(split.labels[rows])
        yield features.to(device), labels.to(device), [mask.to(device) for mask in masks.draw()]


def _device() -> torch.device:
    """The GPU of this process among those of its host; without CUDA one core, for every core has its process."""
    if torch.cuda.is_available():
        torch.cuda.set_device(hvd.local_rank())
        return torch.device("cuda", hvd.local_rank())
    torch.set_num_threads(1)
    return torch.device("cpu")


def evaluate(network: Network, split: Split, device: torch.device) -> tuple[float, float]:
    """Loss and NDCG over a split: every process scores its part, then all hold all scores and so decide alike."""
    logits = _scores(network, split, device)
    loss = functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits).double(), torch.tensor(split.labels).double()
    )
    by_user = ndcg(split.users, logits, split.labels, NDCG_AT)
    return float(loss), float(by_user.mean()) if len(by_user) else 0.0


def _scores(network: Network, split: Split, device: torch.device) -> npt.NDArray[np.float32]:
    """(N,) logits: every process scores its part, then all hold all."""
    network.eval()
    part = _part(split)
    with torch.no_grad():
        blocks = [torch.tensor(part[start : start + _BLOCK]) for start in range(0, len(part), _BLOCK)]
        scores = [network(rows.to(device)).cpu() for rows in blocks] or [torch.empty(0)]
    logits: Tensor = hvd.allgather(torch.cat(scores), name="valid_logits")
    found: npt.NDArray[np.float32] = logits.numpy()
    return found


def _tree_scores(model: bytes, split: Split, kind: str) -> npt.NDArray[np.float32]:
    """(N,) scores of trees, likewise."""
    scores = torch.from_numpy(margins(loaded(model), np.ascontiguousarray(_part(split))))
    gathered: Tensor = hvd.allgather(scores, name=f"valid_{kind}")
    found: npt.NDArray[np.float32] = gathered.float().numpy()
    return found


def _part(split: Split) -> npt.NDArray[np.float32]:
    """The features of the rows that this process scores."""
    bounds = np.linspace(0, len(split), hvd.size() + 1).astype(int)
    return split.features[bounds[hvd.rank()] : bounds[hvd.rank() + 1]]


def ndcg(
    users: npt.NDArray[np.int32], scores: npt.NDArray[np.floating], labels: npt.NDArray[np.float32], k: int,
) -> npt.NDArray[np.float64]:
    """NDCG@k of each user with a positive among the examples, in order of the users' numbers. All arguments are (N,).

    Binary relevance, discount 1/log2(rank + 1), ideal over min(k, positives) (Järvelin & Kekäläinen 2002, "Cumulated
    gain-based evaluation of IR techniques"). Equal scores keep the order of the rows.
    """
    order = np.lexsort((-scores, users))
    _, first, user = np.unique(users[order], return_index=True, return_inverse=True)
    place = np.arange(len(order)) - first[user]
    discount = 1 / np.log2(np.arange(k) + 2)
    gain = np.where(place < k, labels[order] * discount[np.minimum(place, k - 1)], 0)
    positives = np.bincount(user, weights=labels[order]).astype(int)
    ideal = np.cumsum(discount)[np.clip(positives, 1, k) - 1]
    judged = positives > 0
    found: npt.NDArray[np.float64] = (np.bincount(user, weights=gain) / ideal)[judged]
    return found
