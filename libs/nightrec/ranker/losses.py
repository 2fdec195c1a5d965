"""What the network is taught by: a sum over a batch, and what it is to be divided by over a whole step.

Letters: B examples of a batch, in L lists one after another; `lists` (B,) is each one's list, ascending from 0, and
`weights` (L,) what a list counts. Segments instead of a padded matrix: the cost is that of the examples alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def total(name: str, scores: Tensor, target: Tensor, lists: Tensor, weights: Tensor) -> Tensor:
    """The sum of a network's loss, which over its `size` is the loss. `target` (B,): labels, or ratings."""
    if name in ("binary", "squared"):
        return (binary if name == "binary" else squared)(scores, target)
    return (pairwise if name == "pairwise" else listwise)(scores, target, lists, weights)


def size(name: str, rows: int, weight: float) -> float:
    """What the sum of a step of so many rows, whose lists weigh so much, is divided by; 1 instead of 0."""
    return max(float(rows) if name in ("binary", "squared") else weight, 1.0)


def binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropy of each example."""
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def squared(scores: Tensor, ratings: Tensor) -> Tensor:
    """Sum of the squared differences."""
    return ((scores - ratings) ** 2).sum()


def listwise(logits: Tensor, labels: Tensor, lists: Tensor, weights: Tensor) -> Tensor:
    """Sum over lists of weight x mean over its positives of -log softmax over the list (Cao et al. 2007, "Learning to
    Rank: From Pairwise Approach to Listwise Approach", with 1 / positives as the given distribution). 0 without any."""
    none = torch.zeros_like(weights, dtype=logits.dtype)
    most = torch.full_like(none, -torch.inf).scatter_reduce(0, lists, logits.detach(), "amax")
    log_sum = most + none.index_add(0, lists, torch.exp(logits - most[lists])).log()
    positives = none.index_add(0, lists, labels)
    mean = none.index_add(0, lists, logits * labels) / positives.clamp(min=1)
    return (weights * torch.where(positives > 0, log_sum - mean, none)).sum()


def pairwise(logits: Tensor, labels: Tensor, lists: Tensor, weights: Tensor) -> Tensor:
    """Sum over lists of weight x mean over its pairs of a positive p and another n of log(1 + e^(n - p)) (Burges et al.
    2005, "Learning to Rank using Gradient Descent"; Rendle et al. 2009, "BPR"). 0 without a pair."""
    is_positive = labels > 0
    positives, others = is_positive.nonzero().squeeze(1), (~is_positive).nonzero().squeeze(1)
    in_list = [torch.bincount(lists[rows], minlength=len(weights)) for rows in (positives, others)]
    of = lists[positives]
    pairs = in_list[1][of]  # of each positive; its others lie one after another
    first = (in_list[1].cumsum(0) - in_list[1])[of]
    within = torch.arange(int(pairs.sum()), device=pairs.device) - (pairs.cumsum(0) - pairs).repeat_interleave(pairs)
    better = logits[positives].repeat_interleave(pairs)
    worse = logits[others[first.repeat_interleave(pairs) + within]]
    each = (weights / (in_list[0] * in_list[1]).clamp(min=1))[of].repeat_interleave(pairs)
    return (each * functional.softplus(worse - better)).sum()
