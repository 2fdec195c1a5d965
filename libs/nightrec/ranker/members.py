"""A ranker as one safetensors file: the network, the trees and how they are blended. Numbers only, nothing can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import xgboost

from nightrec.features import FEATURES
from nightrec.ranker import kernel, trees
from nightrec.ranker.blend import Blend
from nightrec.ranker.model import BESIDE

_TREES, _WEIGHT, _SIGMOID = BESIDE
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Members:
    """A ranker ready to score."""

    network: kernel.Compiled
    trees: Mapping[str, xgboost.Booster]
    blend: Blend

    def probabilities(self, features: npt.NDArray[np.float32]) -> Doubles:
        """(N, F) features to (N,) probabilities; members without a weight are not asked."""
        scores: dict[str, Doubles] = {}
        for member in self.blend.weight:
            if member in self.trees:
                scores[member] = trees.margins(self.trees[member], features)
            elif member in FEATURES:
                scores[member] = features[:, FEATURES.index(member)].astype(np.float64)
            else:
                scores[member] = self.network.logits(features)
        return self.blend.probabilities(scores)


def packed(network: bytes, trees: Mapping[str, bytes], blend: Blend) -> bytes:
    """The file's bytes; `network` as of `model.dumped`, `trees` by kind as of `trees.trained`."""
    tensors = safetensors.numpy.load(network)
    tensors |= {f"{_TREES}{kind}": np.frombuffer(model, np.uint8) for kind, model in trees.items()}
    tensors |= {f"{_WEIGHT}{member}": np.array(weight) for member, weight in blend.weight.items()}
    tensors[_SIGMOID] = np.array([blend.slope, blend.offset])
    return safetensors.numpy.save(tensors)


def unpacked(blob: bytes) -> Members:
    """The ranker of `packed`."""
    tensors = safetensors.numpy.load(blob)
    network = {name: value for name, value in tensors.items() if not name.startswith(BESIDE)}
    weight = {name.removeprefix(_WEIGHT): float(value) for name, value in tensors.items() if name.startswith(_WEIGHT)}
    slope, offset = tensors[_SIGMOID].tolist()
    boosters = {
        name.removeprefix(_TREES): trees.loaded(value.tobytes())
        for name, value in tensors.items()
        if name.startswith(_TREES)
    }
    return Members(kernel.compiled(network), boosters, Blend(weight, slope, offset))
