"""A ranker as one safetensors file: networks, trees and how they are blended. Numbers only, nothing can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
import xgboost
from safetensors import SafetensorError

from nightrec import weights
from nightrec.errors import NightrecError
from nightrec.features import FEATURES
from nightrec.ranker import kernel, model, trees
from nightrec.ranker.blend import NETWORK, Blend
from nightrec.ranker.heads import Attentive, Given, Head
from nightrec.ranker.kinds import Kind, worth

# What the names of tensors begin with; those of a network, with the name of the member.
_TREES, _WEIGHT, _SIGMOID, _KIND = "trees.", "weight.", "sigmoid", "kind."
Doubles = npt.NDArray[np.float64]

# Scores are rounded, so that the last bits of a sum, which depend on the processor, cannot decide between two items
# that are alike; and probabilities kept off 0 and 1.
_DIGITS = 7
_SMALLEST = 10.0**-_DIGITS


@dataclass(frozen=True)
class Members:
    """A ranker ready to score. A perceptron over the features is `compiled`; a head that reads vectors is as torch has
    it, in double precision."""

    networks: Mapping[str, kernel.Compiled | Head]
    trees: Mapping[str, xgboost.Booster]
    blend: Blend
    kinds: Mapping[str, Kind]

    @property
    def feature_count(self) -> int:
        """F that its networks read, 0 where they read none."""
        return max(
            int(network.widths[0]) if isinstance(network, kernel.Compiled) else network.feature_count
            for network in self.networks.values()
        )

    @property
    def readers(self) -> dict[str, Head]:
        """The networks that read text vectors, of those that are asked: the blend may have left them out."""
        asked = ((name, one) for name, one in self.networks.items() if name in self.blend.weight)
        return {name: one for name, one in asked if not isinstance(one, kernel.Compiled)}

    @property
    def vector_width(self) -> int:
        """D of the text vectors that it reads, 0 where it reads none."""
        return max((head.vector_width for head in self.readers.values()), default=0)

    def by_keys(self) -> tuple[Doubles | None, Members]:
        """(W, D) that turns a text vector into the W numbers that attentions read of it, and the ranker that reads
        those and gives the same scores; None and this one where a head reads whole vectors, or none reads any."""
        heads = {name: head for name, head in self.readers.items() if isinstance(head, Attentive)}
        if not heads or len(heads) < len(self.readers):
            return None, self
        keys = np.concatenate([head.attention.detach().numpy() for head in heads.values()])
        short = {name: head.by_keys(place, len(heads)) for place, (name, head) in enumerate(heads.items())}
        return keys, replace(self, networks={**self.networks, **short})

    def scores(
        self, features: npt.NDArray[np.float32], vectors: Given | None, values: Mapping[str, float]
    ) -> Doubles:
        """(N,): the expected value of each candidate by `values` of kinds of event; without any, the probability of
        an action, rounded and in (0, 1)."""
        any_action = self.probabilities(features, vectors)
        if values:
            return worth(self.kinds, values, features, any_action).round(_DIGITS)
        return any_action.round(_DIGITS).clip(_SMALLEST, 1 - _SMALLEST)

    def probabilities(self, features: npt.NDArray[np.float32], vectors: Given | None = None) -> Doubles:
        """(N, F) features to (N,) probabilities; members without a weight are not asked. `vectors` are for heads that
        read them."""
        scores: dict[str, Doubles] = {}
        for member in self.blend.weight:
            if member in self.trees:
                scores[member] = trees.margins(self.trees[member], features)
            elif member in FEATURES:
                scores[member] = features[:, FEATURES.index(member)].astype(np.float64)
            else:
                scores[member] = _by_network(self.networks[member], features, vectors)
        return self.blend.probabilities(scores)


def _by_network(
    network: kernel.Compiled | Head, features: npt.NDArray[np.float32], vectors: Given | None
) -> Doubles:
    if isinstance(network, kernel.Compiled):
        return network.logits(features)
    assert vectors is not None
    with torch.inference_mode():
        found: Doubles = network.scores(vectors).numpy()
    return found


def packed(
    networks: Mapping[str, bytes], trees: Mapping[str, bytes], blend: Blend, kinds: Mapping[str, Kind]
) -> bytes:
    """The file's bytes; `networks` by member as of `model.dumped`, `trees` by kind as of `trees.trained`."""
    tensors: dict[str, npt.NDArray[np.generic]] = {
        f"{member}.{name}": tensor
        for member, network in networks.items()
        for name, tensor in safetensors.numpy.load(network).items()
    }
    tensors |= {f"{_TREES}{kind}": np.frombuffer(model, np.uint8) for kind, model in trees.items()}
    tensors |= {f"{_WEIGHT}{member}": np.array(weight, np.float64) for member, weight in blend.weight.items()}
    tensors[_SIGMOID] = np.array([blend.slope, blend.offset], np.float64)
    tensors |= {
        f"{_KIND}{name}": np.concatenate([kind.weights, [kind.slope, kind.offset]]).astype(np.float64)
        for name, kind in kinds.items()
    }
    return safetensors.numpy.save(tensors)


def unpacked(blob: bytes) -> Members:
    """The ranker of `packed`. Raises NightrecError where the bytes are not one."""
    promised = weights.tensors(blob, "the ranker's weights")
    try:
        for name, tensor in promised.items():
            _expect(name, tensor)
        # They come in another order in every process, and sums depend on it.
        return _members(dict(sorted(safetensors.numpy.load(blob).items())))
    except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError, xgboost.core.XGBoostError) as error:
        told = " ".join(str(error).split())[:200]
        raise NightrecError(f"the ranker's weights cannot be read: {told}; train it again") from None


def _expect(name: str, tensor: weights.Tensor) -> None:
    """Raise ValueError unless a tensor has the type and the number of dimensions that `packed` gives it."""
    if name.startswith(_TREES):
        expected = "U8", 1
    elif name.startswith(NETWORK):
        expected = ("U8", 1) if name.endswith(f".{model.HEAD}") else ("F32", len(tensor.shape))
    else:
        expected = "F64", 0 if name.startswith(_WEIGHT) else 1
        if not name.startswith((_WEIGHT, _KIND)) and name != _SIGMOID:
            raise ValueError(f"nobody knows the tensor {name}")
    if (tensor.dtype, len(tensor.shape)) != expected:
        raise ValueError(f"{name} is {tensor.dtype} of shape {list(tensor.shape)}, not {expected[0]}, {expected[1]}-d")


def _members(tensors: dict[str, npt.NDArray[Any]]) -> Members:
    unfit = [name for name, value in tensors.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if unfit:
        raise ValueError(f"{unfit[0]} holds what is no finite number")
    weight = {name.removeprefix(_WEIGHT): float(tensors[name]) for name in tensors if name.startswith(_WEIGHT)}
    slope, offset = tensors[_SIGMOID].tolist()
    boosters = {
        name.removeprefix(_TREES): trees.loaded(value.tobytes())
        for name, value in tensors.items()
        if name.startswith(_TREES)
    }
    kinds = {
        name.removeprefix(_KIND): Kind(value[:-2], float(value[-2]), float(value[-1]))
        for name, value in tensors.items()
        if name.startswith(_KIND)
    }
    by_member: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for name, value in tensors.items():
        if name.startswith(NETWORK):
            member, part = name.split(".", 1)
            by_member.setdefault(member, {})[part] = value
    networks = {member: _network(parts) for member, parts in by_member.items()}
    if unknown := sorted(set(weight) - {*networks, *boosters, *FEATURES}):
        raise ValueError(f"nobody has the scores of {unknown[0]}")
    if any(len(kind.weights) != len(FEATURES) + 1 for kind in kinds.values()):
        raise ValueError("a kind has not a weight per feature")
    return Members(networks, boosters, Blend(weight, slope, offset), kinds)


def _network(tensors: dict[str, npt.NDArray[np.float32]]) -> kernel.Compiled | Head:
    head = model.loaded(safetensors.numpy.save(tensors))
    return head.double() if head.reads_vectors else kernel.compiled(tensors)
