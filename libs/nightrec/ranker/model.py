"""What training does to a network's weights, and the weights on disk. Letters: B batch, H width of a hidden layer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nightrec.errors import NightrecError
from nightrec.failpoint import reach
from nightrec.ranker import heads
from nightrec.ranker.heads import ATTENTION, Head, Network
from nightrec.weights import opened

# The tensor that names the head, in UTF-8.
HEAD = "head"
# Networks of the defaults take 0.3 MB, trees 3 MB.
MOST_BYTES = 2**30


class DropoutMasks:
    """Per step one (B, H) mask per hidden layer: 0 with probability `dropout`, else 1 / (1 - dropout).

    Each row of all that train has its own stretch of one counter-based stream (Philox; Salmon et al. 2011, "Parallel
    random numbers: as easy as 1, 2, 3"), so a process draws only for the rows that it takes, and the number of
    processes changes nothing. Drawing the whole batch took a third of a step. 16 bits decide: probabilities are
    multiples of 1/65536. How many rows have `gone` through all steps so far is the whole state of the stream.
    """

    def __init__(self, hidden: Sequence[int], dropout: float, seed: int, gone: int = 0) -> None:
        self._hidden, self._dropout = hidden, dropout
        self._blocks = -(-sum(hidden) // 16)  # Philox gives 256 bits at a time
        self._stream = np.random.Philox(key=seed).advance(gone * self._blocks)

    def draw(self, rows: range, of: int) -> list[Tensor]:
        """The masks of some rows of the next step, which has `of` of them; none without dropout."""
        if self._dropout == 0:
            return []
        self._stream.advance(rows.start * self._blocks)
        drawn = self._stream.random_raw(len(rows) * self._blocks * 4).view(np.uint16)
        drawn = drawn.reshape(len(rows), self._blocks * 16)
        self._stream.advance((of - rows.stop) * self._blocks)
        # As bytes: multiplying floats by booleans would convert them one by one.
        kept = torch.from_numpy((drawn >= round(self._dropout * 65536)).view(np.uint8))
        masks = kept[:, : sum(self._hidden)].float() / (1 - self._dropout)
        return list(torch.split(masks, list(self._hidden), dim=1))


def flattened(network: Head) -> tuple[nn.Parameter, Tensor]:
    """All weights that are learned as one vector, and their gradient as another, of which the network's become views.

    One message per step then averages them, and one kernel updates them: six of each took longer than the arithmetic.
    """
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    flat = nn.Parameter(nn.utils.parameters_to_vector(learned).detach().clone())
    gradient = flat.grad = torch.zeros_like(flat)
    start = 0
    for weight in learned:
        part = slice(start, start + weight.numel())
        weight.data, weight.grad = flat.data[part].view_as(weight), gradient[part].view_as(weight)
        start += weight.numel()
    return flat, gradient


def dumped(network: Head) -> bytes:
    """The network as safetensors: numbers only, nothing that could run."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors | {HEAD: torch.tensor(list(network.name.encode()), dtype=torch.uint8)})


def loaded(weights: bytes) -> Head:
    """The network of `dumped`, ready to score. Raises NightrecError where the bytes are not one."""
    try:
        tensors = safetensors.torch.load(weights)
        network = _empty(bytes(tensors.pop(HEAD).tolist()).decode(), tensors)
        network.load_state_dict(tensors)
    except (SafetensorError, LookupError, RuntimeError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise NightrecError(f"the ranker's weights cannot be read: {told}; train it again") from None
    return network.eval()


def _empty(name: str, tensors: dict[str, Tensor]) -> Head:
    """The head of these shapes; raises KeyError where there is none of the name."""
    shift = tensors["shift"]
    if name == heads.Bilinear.name:
        return heads.Bilinear(len(tensors["matrix"]), shift)
    if name == heads.Cosine.name:
        return heads.Cosine(len(tensors["log_weights"]), shift)
    hidden = [len(tensors[f"layers.{n}.bias"]) for n in range(sum(name.endswith(".bias") for name in tensors) - 1)]
    mean, std = tensors["mean"], tensors["std"]
    if name == heads.Product.name:
        return heads.Product(len(mean), shift, hidden)
    if name == heads.Attentive.name:
        own = slice(len(mean) - ATTENTION)
        return heads.Attentive(mean[own], std[own], shift, hidden, tensors["attention"].shape[1])
    return {Network.name: Network}[name](mean, std, shift, hidden)


def write(weights: bytes, file: Path) -> str:
    """Put weights in place whole or not at all; returns their sha-256 in hex."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob(f".{file.name}.*"):  # by a process that was killed while it wrote
        left.unlink(missing_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        handle.write(weights)
        handle.flush()
        os.fsync(handle.fileno())
    reach("ranker_model.in_weights")
    temporary.replace(file)
    return hashlib.sha256(weights).hexdigest()


def read(file: Path, sha256: str) -> bytes:
    """Weights whose fingerprint is the recorded one. Raises NightrecError where they are missing or others."""
    try:
        weights = opened(file, MOST_BYTES)
    except OSError as error:
        raise NightrecError(f"the ranker's weights {file} cannot be read: {error.strerror}; train it again") from None
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise NightrecError(f"the ranker's weights {file}: expected sha-256 {sha256}, found {found}; train it again")
    return weights
