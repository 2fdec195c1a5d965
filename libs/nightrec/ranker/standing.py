"""Where the training of one network stands: what must be kept so that it goes on as if nothing had happened."""

from __future__ import annotations

from typing import Any

import horovod.torch as hvd
import numpy as np
import torch
from torch import Tensor

from nightrec.ranker.checkpoint import Kept, State

# Of an epoch.
_FIGURES = ("epoch", "train_loss", "valid_loss", "valid_ndcg")


class Standing:
    """Where a network's training stands, and that in its checkpoint: after `steps` steps of an epoch and `rows` rows
    since it began, with the loss of these steps in `total`; the figures of the epochs before, and the best weights.

    The order of an epoch follows from its number and the masks from `rows`: there is no other state of chance.
    """

    def __init__(self, weights: torch.nn.Parameter, optimizer: torch.optim.Optimizer, kept: Kept) -> None:
        self._weights, self._optimizer, self._kept = weights, optimizer, kept
        self.curve: list[dict[str, Any]] = []
        self.best = weights.detach().clone()
        self.rows = 0
        self.begin(1)
        if state := kept.loaded():
            self._go_on(state)

    def begin(self, epoch: int) -> None:
        """Stand at the beginning of an epoch."""
        self.epoch, self.steps = epoch, 0
        self.total = torch.zeros((), device=self._weights.device)

    def went(self, rows: int, loss: Tensor) -> None:
        """By a step."""
        self.steps, self.rows, self.total = self.steps + 1, self.rows + rows, self.total + loss

    def keep(self) -> None:
        """Write it all. All processes take part: only the loss of the steps differs between them."""
        if self._kept.file is None:
            return
        totals: Tensor = hvd.allgather(self.total.reshape(1), name="totals") if self.steps else self.total.reshape(1)
        if hvd.rank():
            return
        tensors = {"weights": self._weights.detach(), "best": self.best, "totals": totals}
        tensors |= {f"optimizer.{name}": value for name, value in self._optimizer.state[self._weights].items()}
        self._kept.keep({
            "place": np.array([self.epoch, self.steps, self.rows]),
            **{name: tensor.cpu().numpy() for name, tensor in tensors.items()},
            **{f"curve.{name}": np.array([epoch[name] for epoch in self.curve]) for name in _FIGURES},
        })

    def _go_on(self, state: State) -> None:
        epoch, self.steps, self.rows = state["place"].tolist()
        self.epoch = epoch
        device, totals = self._weights.device, torch.from_numpy(state["totals"])
        # Of another number of processes only their mean is known: it is what the figures are made of.
        self.total = (totals[hvd.rank()] if len(totals) == hvd.size() else totals.mean()).to(device)
        self._weights.data.copy_(torch.from_numpy(state["weights"]))
        self.best = torch.from_numpy(state["best"]).to(device)
        self._optimizer.state[self._weights].update({
            name.removeprefix("optimizer."): torch.from_numpy(value).to(device)
            for name, value in state.items()
            if name.startswith("optimizer.")
        })
        columns = [state[f"curve.{name}"].tolist() for name in _FIGURES]
        self.curve += [dict(zip(_FIGURES, figures, strict=True)) for figures in zip(*columns, strict=True)]
