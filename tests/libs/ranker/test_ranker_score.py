"""Scores on the executors against the bare network in memory."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch

from nightrec.errors import NightrecError
from nightrec.features import FEATURES
from nightrec.ranker import heads, kernel, members, model
from nightrec.ranker.blend import Blend
from nightrec.ranker.score import scored
from nightrec.tables import CANDIDATES

VALUES = np.random.default_rng(9).normal(size=(30, len(FEATURES))).astype(np.float32)


@pytest.fixture
def candidates(rows):
    given = [
        {"list_kind": "user", "list_key": f"u{n % 3}", "item_id": f"i{n}", "features": values.tolist()}
        for n, values in enumerate(VALUES)
    ]
    return rows(CANDIDATES, [*given, {"list_kind": "everyone", "list_key": "everyone", "item_id": "i0"}])


def nothing():
    raise AssertionError("this head reads no vectors")


def alone(network):
    """The file of a ranker that is this network and nothing else."""
    return members.packed({"network_binary": model.dumped(network)}, {}, Blend({"network_binary": 1.0}, 1.0, 0.0), {})


@pytest.fixture
def network():
    torch.manual_seed(1)
    width = len(FEATURES)
    return heads.Network(torch.zeros(width), torch.ones(width), torch.tensor(-1.0), (64, 32)).eval()


def test_scores_are_the_bare_network_s_on_the_same_features(candidates, network, tmp_path):
    file = tmp_path / "model.safetensors"
    sha256 = model.write(alone(network), file)
    frame = scored(candidates, str(file), sha256, list(FEATURES), {}, {}, nothing)
    assert frame.columns == [*(name for name in CANDIDATES.names if name != "features"), "score"]
    found = {row.item_id: row.score for row in frame.select("item_id", "score").collect()}
    with torch.no_grad():
        bare = torch.sigmoid(network(torch.tensor(VALUES)))
    assert found == pytest.approx({f"i{n}": value for n, value in enumerate(bare.tolist())}, abs=2e-6)
    assert len(set(found.values())) > 20
    # one row to a batch, other partitions: not one digit differs
    again = scored(candidates.repartition(30), str(file), sha256, FEATURES, {}, {}, nothing)
    assert {row.item_id: row.score for row in again.select("item_id", "score").collect()} == found


def test_scores_keep_off_0_and_1_and_nothing_gives_nothing(candidates, network, tmp_path):
    network.shift.fill_(-500.0)
    sha256 = model.write(alone(network), tmp_path / "low")
    low = scored(candidates, str(tmp_path / "low"), sha256, FEATURES, {}, {}, nothing)
    assert {row.score for row in low.select("score").collect()} == {1e-7}
    none = scored(candidates.limit(0), str(tmp_path / "low"), sha256, FEATURES, {}, {}, nothing)
    assert none.collect() == []


def test_another_model_is_refused_before_any_row_is_scored(candidates, network, tmp_path):
    file = tmp_path / "model.safetensors"
    sha256 = model.write(alone(network), file)
    with pytest.raises(NightrecError, match=r"other features than .* \(gone: age; new: als_share\)"):
        scored(candidates, str(file), sha256, ["age", *FEATURES[1:]], {}, {}, nothing)
    with pytest.raises(NightrecError, match="in another order"):
        scored(candidates, str(file), sha256, FEATURES[::-1], {}, {}, nothing)
    with pytest.raises(NightrecError, match="expected sha-256 0000"):
        scored(candidates, str(file), "0000", FEATURES, {}, {}, nothing)
    narrow = heads.Network(torch.zeros(2), torch.ones(2), torch.tensor(0.0), (4,))
    sha256 = model.write(alone(narrow), file)
    with pytest.raises(NightrecError, match=f"expected {len(FEATURES)} features, found 2"):
        scored(candidates, str(file), sha256, FEATURES, {}, {}, nothing)


@pytest.mark.parametrize("hidden", [(64, 32), (8,), (5, 3, 7), (1, 130)])  # widths that do and do not divide by four
@pytest.mark.parametrize("width", [1, 4, 27])
def test_the_kernel_is_the_network_in_double_precision(hidden, width):
    torch.manual_seed(5)
    bare = heads.Network(torch.randn(width), torch.rand(width) + 0.5, torch.tensor(-0.7), hidden).eval()
    network = kernel.compiled(safetensors.numpy.load(model.dumped(bare)))
    given = np.random.default_rng(6).normal(size=(300, width)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(bare.double()(torch.from_numpy(given).double())).numpy()
    found = network.probabilities(given)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    # alone, in the last block, in another place: the same bits; and a broken row spoils no other
    assert network.probabilities(given[-1:]) == found[-1:]
    np.testing.assert_array_equal(network.probabilities(given[::-1].copy())[::-1], found)
    given[7] = np.nan
    np.testing.assert_array_equal(np.delete(network.probabilities(given), 7), np.delete(found, 7))
    assert len(network.probabilities(given[:0])) == 0
