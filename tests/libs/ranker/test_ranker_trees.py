"""Trees on planted examples, and the file that holds a whole ranker."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nightrec.config import Ranker
from nightrec.features import FEATURES
from nightrec.ranker import heads, kernel, members, model, trees
from nightrec.ranker.blend import Blend, sigmoid
from nightrec.ranker.dataset import Split

# Every tree may look at every feature: the planted one is among a hundred.
SETTINGS = Ranker(trees=20, tree_depth=3, tree_learning_rate=0.3, tree_leaf_weight=1.0, tree_features=1.0)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(1200, len(FEATURES))).astype(np.float32)


@pytest.fixture(scope="module")
def planted(values: np.ndarray) -> Split:
    """60 lists of 20; acted on where the first feature is above 1, whatever the others say."""
    number = np.arange(len(values), dtype=np.int32)
    acted = (values[:, 0] > 1).astype(np.float32)
    none, unrated = np.zeros_like(number), np.full_like(acted, np.nan)
    return Split(0, none, number // 20, number % 20, acted, none, unrated, values)


def test_each_kind_finds_what_was_planted(planted: Split, values: np.ndarray) -> None:
    models = {kind: trees.trained(kind, planted, SETTINGS) for kind in trees.KINDS}
    acted = values[:, 0] > 1
    for kind, blob in models.items():
        scores = trees.margins(trees.loaded(blob), values)
        # Within each list, which is all that a ranking compares.
        for own, wanted in zip(np.split(scores, 60), np.split(acted, 60), strict=True):
            assert min(own[wanted], default=np.inf) > max(own[~wanted], default=-np.inf), kind
        # The same again.
        assert blob == trees.trained(kind, planted, SETTINGS)
    # A logarithm of odds: its sigmoid is near the label.
    assert np.abs(sigmoid(trees.margins(trees.loaded(models["binary"]), values)) - acted).mean() < 0.1


def test_a_ranker_comes_back_from_its_file(planted: Split, values: np.ndarray) -> None:
    torch.manual_seed(1)
    width = len(FEATURES)
    network = model.dumped(heads.Network(torch.zeros(width), torch.ones(width), torch.tensor(0.0), (8,)))
    models = {kind: trees.trained(kind, planted, SETTINGS) for kind in trees.KINDS}
    blend = Blend({"network_listwise": 0.5, "binary": 0.25, "ranking": 2.0}, slope=1.5, offset=-0.5)
    found = members.unpacked(members.packed({"network_listwise": network}, models, blend, {}))
    assert found.blend == blend
    # Read in a process's own order, equal scores would differ in their last bits.
    assert list(found.blend.weight) == ["binary", "network_listwise", "ranking"]
    assert list(found.trees) == ["binary", "ranking"]
    scores = {kind: trees.margins(trees.loaded(blob), values) for kind, blob in models.items()}
    scores["network_listwise"] = kernel.compiled(members.safetensors.numpy.load(network)).logits(values)
    mean = 0.5 * scores["network_listwise"] + 0.25 * scores["binary"] + 2 * scores["ranking"]
    assert found.probabilities(values) == pytest.approx(sigmoid(1.5 * mean - 0.5), abs=1e-12)
    # Rows do not depend on those beside them.
    assert (found.probabilities(values[7:9]) == found.probabilities(values)[7:9]).all()
    assert (found.feature_count, found.vector_width) == (width, 0)
