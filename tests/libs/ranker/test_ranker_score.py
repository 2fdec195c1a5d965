"""Scores on the executors against the bare network in memory."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch

from nightrec.errors import NightrecError
from nightrec.ranker import kernel, model
from nightrec.features import FEATURES, features
from nightrec.ranker.score import scored
from nightrec.tables import CANDIDATES, ITEM_PROFILES, USER_PROFILES


@pytest.fixture
def inputs(rows):
    candidates = rows(CANDIDATES, [
        {"list_kind": "user", "list_key": f"u{n % 3}", "item_id": f"i{n}", "als_score": 1 / (n + 1), "als_rank": n + 1,
         "because_item_id": "x" if n % 2 else None}
        for n in range(30)
    ])
    items = rows(ITEM_PROFILES, [{"item_id": f"i{n}", "user_count": n, "popularity_share": n / 30} for n in range(30)])
    users = rows(USER_PROFILES, [{"user_id": f"u{n}", "event_count": n} for n in range(3)])
    return candidates, items, users


@pytest.fixture
def network():
    torch.manual_seed(3)
    width = len(FEATURES)
    return model.Network(torch.zeros(width), torch.ones(width), torch.tensor(-1.0), (8, 4)).eval()


def test_scores_are_the_bare_network_s_on_the_same_features(inputs, network, tmp_path):
    file = tmp_path / "model.safetensors"
    sha256 = model.write(model.dumped(network), file)
    frame = scored(*inputs, str(file), sha256, list(FEATURES))
    assert frame.columns == [*CANDIDATES.names, "score"]
    found = {row.item_id: row.score for row in frame.select("item_id", "score").collect()}
    given = features(*inputs).select("item_id", "features").toPandas().set_index("item_id")["features"]
    with torch.no_grad():
        bare = torch.sigmoid(network(torch.tensor(np.stack(given.to_list()))))
    expected = dict(zip(given.index, bare.tolist(), strict=True))
    assert found == pytest.approx(expected, abs=2e-6)
    assert len(set(found.values())) > 20
    # one row to a batch, other partitions: not one digit differs
    again = scored(inputs[0].repartition(30), *inputs[1:], str(file), sha256, FEATURES)
    assert {row.item_id: row.score for row in again.select("item_id", "score").collect()} == found


def test_scores_keep_off_0_and_1_and_nothing_gives_nothing(inputs, network, tmp_path):
    network.shift.fill_(-500.0)
    sha256 = model.write(model.dumped(network), tmp_path / "low")
    low = scored(*inputs, str(tmp_path / "low"), sha256, FEATURES)
    assert {row.score for row in low.select("score").collect()} == {1e-7}
    none = scored(inputs[0].limit(0), *inputs[1:], str(tmp_path / "low"), sha256, FEATURES)
    assert none.collect() == []


def test_another_model_is_refused_before_any_row_is_scored(inputs, network, tmp_path):
    file = tmp_path / "model.safetensors"
    sha256 = model.write(model.dumped(network), file)
    with pytest.raises(NightrecError, match=r"other features than .* \(gone: age; new: als_nominated\)"):
        scored(*inputs, str(file), sha256, ["age", *FEATURES[1:]])
    with pytest.raises(NightrecError, match="in another order"):
        scored(*inputs, str(file), sha256, FEATURES[::-1])
    with pytest.raises(NightrecError, match="expected sha-256 0000"):
        scored(*inputs, str(file), "0000", FEATURES)
    narrow = model.Network(torch.zeros(2), torch.ones(2), torch.tensor(0.0), (4,))
    sha256 = model.write(model.dumped(narrow), file)
    with pytest.raises(NightrecError, match=f"expected {len(FEATURES)} features, found 2"):
        scored(*inputs, str(file), sha256, FEATURES)


@pytest.mark.parametrize("hidden", [(64, 32), (8,), (5, 3, 7), (1, 130)])  # widths that do and do not divide by four
@pytest.mark.parametrize("width", [1, 4, 27])
def test_the_kernel_is_the_network_in_double_precision(hidden, width):
    torch.manual_seed(5)
    bare = model.Network(torch.randn(width), torch.rand(width) + 0.5, torch.tensor(-0.7), hidden).eval()
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
