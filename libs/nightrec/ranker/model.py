"""The ranking network and its weights on disk. Letters: B batch, F features, H width of a hidden layer."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nightrec.errors import NightrecError


class Network(nn.Module):
    """A multilayer perceptron: (B, F) features to (B,) logits; the sigmoid of a logit is the probability of an action.

    It carries what turns raw features into its input, so weights and constants cannot be parted: `mean` and `std` (F,)
    of the training examples, and `shift`, the logarithm of the share of negatives that training kept. Training sees
    too few negatives; added to the logit, the shift gives the odds among all candidates (King & Zeng 2001, "Logistic
    Regression in Rare Events Data", prior correction).
    """

    mean: Tensor
    std: Tensor
    shift: Tensor

    def __init__(self, mean: Tensor, std: Tensor, shift: Tensor, hidden: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        # A feature that never varies in training has no scale; dividing by 1 leaves it at 0.
        self.register_buffer("std", torch.where(std > 1e-6, std, torch.ones_like(std)))
        self.register_buffer("shift", shift)
        widths = [len(mean), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, features: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """(B, F) to (B,) logits. While training, `masks` holds one (B, H) dropout mask per hidden layer, or none."""
        x = (features - self.mean) / self.std
        for n, layer in enumerate(self.layers):
            x = torch.relu(layer(x))
            if masks:
                x = x * masks[n]
        logits: Tensor = self.output(x).squeeze(-1)
        return logits if self.training else logits + self.shift


def dropout_masks(hidden: Sequence[int], batch: int, dropout: float, generator: torch.Generator) -> list[Tensor]:
    """One (B, H) mask per hidden layer: 0 with probability `dropout`, else 1 / (1 - dropout).

    Drawn for the whole batch of all processes, so that a process takes its rows and their number changes nothing.
    """
    if dropout == 0:
        return []
    return [(torch.rand(batch, width, generator=generator) >= dropout) / (1 - dropout) for width in hidden]


def dumped(network: Network) -> bytes:
    """The network as safetensors: numbers only, nothing that could run."""
    return safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})


def loaded(weights: bytes) -> Network:
    """The network of `dumped`, ready to score. Raises NightrecError where the bytes are not one."""
    try:
        tensors = safetensors.torch.load(weights)
        hidden = [len(tensors[f"layers.{n}.bias"]) for n in range(sum(name.endswith(".bias") for name in tensors) - 1)]
        network = Network(tensors["mean"], tensors["std"], tensors["shift"], hidden)
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise NightrecError(f"the ranker's weights cannot be read: {told}; train it again") from None
    return network.eval()


def write(weights: bytes, file: Path) -> str:
    """Put weights in place whole or not at all; returns their sha-256 in hex."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        handle.write(weights)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(file)
    return hashlib.sha256(weights).hexdigest()


def read(file: Path, sha256: str) -> bytes:
    """Weights whose fingerprint is the recorded one. Raises NightrecError where they are missing or others."""
    try:
        weights = file.read_bytes()
    except OSError as error:
        raise NightrecError(f"the ranker's weights {file} cannot be read: {error.strerror}; train it again") from None
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise NightrecError(f"the ranker's weights {file}: expected sha-256 {sha256}, found {found}; train it again")
    return weights
