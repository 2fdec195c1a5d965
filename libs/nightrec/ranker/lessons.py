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
    training (N,), None for nothing. `vectors` are those of all examples, where a head reads any."""

    split: Split
    loss: str
    units: Units
    target: npt.NDArray[np.float32]
    taken_off: npt.NDArray[np.float32] | None
    vectors: Vectors | None

    @classmethod
    def of(cls, split: Split, train: Split, settings: Ranker, vectors: Vectors | None = None) -> Lessons:
        """Popularity is that of what is learned from, `train`, also for what is judged."""
        power = settings.popularity_correction
        target = split.ratings if settings.loss == "squared" else split.labels
        return cls(
            split, settings.loss, Units.of(split, settings.loss), target,
            power * log_shares(split.items, train) if power else None,
            vectors,
        )

    def given(self, rows: npt.NDArray[np.int64]) -> Given:
        """What the network reads of some rows."""
        if self.vectors is None:
            return Given(torch.from_numpy(self.split.features[rows]))
        return self.vectors.given(self.split, rows)

    @property
    def mean_target(self) -> float:
        """Of the examples that are learned from one by one."""
        return float(self.target[self.units.starts].mean())

    def total(self, scores: Tensor, step: Taken) -> Tensor:
        """The sum of the loss (see losses.total) of a step's rows, of which these are the scores."""
        target, lists, weights = torch.from_numpy(self.target[step.rows]).to(scores), _NONE, _NONE
        if self.units.lengths is not None:
            lists, weights = (torch.from_numpy(values).to(scores.device) for values in (step.units, step.weights))
        if self.taken_off is not None:
            scores = scores - torch.from_numpy(self.taken_off[step.rows]).to(scores)
        return losses.total(self.loss, scores, target, lists, weights.to(scores))


@dataclass(frozen=True)
class Batch:
    """What this process has of a step."""

    lessons: Lessons
    step: Taken
    given: Given
    dropped: list[Tensor]

    def loss(self, scores: Tensor, processes: int) -> Tensor:
        """What this process adds to the step's loss, times so many processes: their mean is the loss."""
        size = losses.size(self.lessons.loss, self.step.rows_of_all, self.step.weight_of_all)
        return self.lessons.total(scores, self.step) * (processes / size)
