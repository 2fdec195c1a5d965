"""A split as the loss sees it, and one process's part of a step of it. Letters: N examples of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nightrec.config import Ranker
from nightrec.ranker import losses
from nightrec.ranker.dataset import Split
from nightrec.ranker.heads import Given
from nightrec.ranker.steps import Taken, Units, log_shares
from nightrec.ranker.texts import Vectors

_NONE = torch.empty(0)


@dataclass(frozen=True)
class Lessons:
    """A split as a loss sees it: its `units`, the `target` (N,) of each example, and what is taken off its logit while
    training (N,), None for nothing. `vectors` are those of the examples of both splits, where a head reads any, and
    `first` the number of the split's row 0 among them."""

    split: Split
    loss: str
    units: Units
    target: npt.NDArray[np.float32]
    taken_off: npt.NDArray[np.float32] | None
    vectors: Vectors | None
    first: int

    @classmethod
    def of(cls, split: Split, train: Split, settings: Ranker, vectors: Vectors | None = None) -> Lessons:
        """Popularity is that of the train split, in the valid split too."""
        power = settings.popularity_correction
        target = split.ratings if settings.loss == "squared" else split.labels
        return cls(
            split, settings.loss, Units.of(split, settings.loss), target,
            power * log_shares(split.items, train) if power else None,
            vectors, 0 if split is train else len(train),
        )

    def given(self, rows: npt.NDArray[np.int64]) -> Given:
        """What the network reads of some rows."""
        if self.vectors is None:
            return Given(torch.from_numpy(self.split.features[rows]))
        return self.vectors.given(self.split, self.first, rows)

    @property
    def mean_target(self) -> float:
        """Of the examples that are learned from one by one."""
        return float(self.target[self.units.starts].mean())

    def sums(self, scores: Tensor, step: Taken) -> list[Tensor]:
        """The sums of the loss (see losses.parts) of a step's rows, of which these are the scores."""
        target, lists, weights = torch.from_numpy(self.target[step.rows]).to(scores), _NONE, _NONE
        if self.units.lengths is not None:
            lists, weights = (torch.from_numpy(values).to(scores.device) for values in (step.units, step.weights))
        if self.taken_off is not None:
            scores = scores - torch.from_numpy(self.taken_off[step.rows]).to(scores)
        return losses.parts(self.loss, scores, target, lists, weights.to(scores))


@dataclass(frozen=True)
class Batch:
    """What this process has of a step."""

    lessons: Lessons
    step: Taken
    given: Given
    dropped: list[Tensor]

    def loss(self, scores: Tensor, processes: int) -> Tensor:
        """What this process adds to the step's loss, times so many processes: their mean is the loss."""
        sums = self.lessons.sums(scores, self.step)
        sizes = losses.sizes(self.lessons.loss, self.step.rows_of_all, self.step.weight_of_all)
        # A loss is one sum, or two: each operation on tensors takes 20 microseconds with its gradient.
        first, *second = [part * (processes / size / len(sizes)) for part, size in zip(sums, sizes, strict=True)]
        return first + second[0] if second else first
