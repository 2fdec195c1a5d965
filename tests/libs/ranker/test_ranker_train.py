"""The Horovod loop on the session's own executors, with examples whose answer was planted."""

from __future__ import annotations

import datetime as dt
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import torch

from nightrec.config import Ranker
from nightrec.errors import BadInput
from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.ranker import model
from nightrec.ranker.train import splits, train

SETTINGS = Ranker(loss="binary", batch=256, epochs=3, hidden=(16, 8), dropout=0.3, negatives_share=1.0, trees=0)


def planted(file: Path, users: int = 60, per_user: int = 20) -> Path:
    """Examples in which the first feature decides: an item is acted on the likelier, the larger it is."""
    rng = np.random.default_rng(5)
    size = users * per_user
    parts = []
    for fold, cut in enumerate((dt.date(2026, 2, 10), dt.date(2026, 2, 24))):
        # Few examples, and so not too many features of noise: the others are 0.
        values = np.zeros((size, len(FEATURES)), np.float32)
        values[:, :30] = rng.normal(size=(size, 30))
        chance = 1 / (1 + np.exp(-(4 * values[:, 0] - 4)))
        labels = (rng.random(size) < chance).astype(np.float32)
        parts.append(pa.table({
            "fold": pa.array([fold] * size, pa.int32()),
            "is_lesson": [True] * size,
            "cut_date": [cut] * size,
            "user_id": [f"u{n // per_user:03}" for n in range(size)],
            "item_id": [f"i{n % per_user:03}" for n in range(size)],
            "label": labels,
            "kinds": pa.array([[]] * size, pa.list_(pa.string())),
            # A rating where the user acted on it, as high as the second feature.
            "rating": pa.array(3 + values[:, 1].astype(float), mask=labels == 0),
            "features": pa.array(list(values), pa.list_(pa.float32())),
        }))
    table = pa.concat_tables(parts)
    # in no order, and in several chunks: the order of the files must not matter
    shuffled = table.take(rng.permutation(len(table)))
    pq.write_table(shuffled, file, row_group_size=701)
    return file


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    return planted(tmp_path_factory.mktemp("examples") / "examples.parquet")


def run(spark, file: Path, processes: int, settings: Ranker = SETTINGS):
    trainer = partial(train, partial(pads.dataset, file), settings, None)
    return on_executors(spark, trainer, processes, 60)


@pytest.mark.parametrize("loss", ["binary", "both"])
def test_one_and_two_processes_walk_the_same_path(spark, examples, tmp_path, loss):
    """Dropout on. Tolerance 1e-4: sums of 128 and 256 float32 terms differ by less than 1e-6 a step."""
    settings = SETTINGS.model_copy(update={"loss": loss, "popularity_correction": 0.1})
    one, two = run(spark, examples, 1, settings), run(spark, examples, 2, settings)
    assert len(one) == 1 and len(two) == 2
    assert two[0].epochs == two[1].epochs
    for a, b in zip(one[0].epochs, two[0].epochs, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    x = torch.randn(50, len(FEATURES))
    assert set(one[0].networks) == {f"network_{name}" for name in settings.losses}
    for name, network in one[0].networks.items():
        torch.testing.assert_close(model.loaded(network)(x), model.loaded(two[0].networks[name])(x), atol=1e-3, rtol=0)
    # the same rows in another order and other files are the same training
    shuffled = tmp_path / "again.parquet"
    table = pq.read_table(examples)
    pq.write_table(table.take(np.random.default_rng(6).permutation(len(table))), shuffled)
    assert run(spark, shuffled, 2, settings)[0] == two[0]


def test_ranks_map_one_file_and_leave_nothing_behind(spark, examples, tmp_path):
    def look():
        import tempfile

        tempfile.tempdir = str(tmp_path)
        try:
            found, _ = splits(partial(pads.dataset, examples))
        finally:
            tempfile.tempdir = None
        maps = Path("/proc/self/maps").read_text().splitlines()
        file = {line.split()[4] for line in maps if "examples.arrow" in line}
        return file, len(found.of(1)), float(found.lessons.features.sum()), list(tmp_path.iterdir())

    one, two = on_executors(spark, look, 2, 60)
    # the same inode, mapped by both, and no longer in the folder
    assert one == two and len(one[0]) == 1 and one[1] == 1200 and one[3] == []


def test_it_learns_what_was_planted_and_stops_early(spark, examples):
    # a rate at which it overfits within the epochs allowed: the best epoch is not the last
    settings = SETTINGS.model_copy(update={"epochs": 40, "learning_rate": 2e-2, "patience": 3, "dropout": 0.0})
    trained = run(spark, examples, 2, settings)[0]
    losses = [epoch["valid_loss"] for epoch in trained.epochs]
    assert trained.best_epochs["network_binary"] == int(np.argmin(losses)) + 1
    assert len(losses) == trained.best_epochs["network_binary"] + 3 < 40
    # a random order of 20 items with about 5 positives has an NDCG@10 near 0.4
    assert max(epoch["valid_ndcg"] for epoch in trained.epochs) > 0.8
    net = model.loaded(*trained.networks.values())
    low, high = torch.zeros(2, len(FEATURES)).index_put((torch.tensor([0, 1]), torch.tensor([0, 0])),
                                                              torch.tensor([-2.0, 2.0]))
    assert net(low[None]).item() + 4 < net(high[None]).item()


@pytest.mark.parametrize("loss", ["pairwise", "listwise", "squared"])
def test_every_loss_learns_what_was_planted_for_it(spark, examples, loss):
    settings = SETTINGS.model_copy(update={"epochs": 30, "learning_rate": 1e-2, "dropout": 0.0, "loss": loss})
    trained = run(spark, examples, 2, settings)[0]
    best = trained.epochs[trained.best_epochs[f"network_{loss}"] - 1]
    assert best["valid_loss"] < trained.epochs[0]["valid_loss"]
    net = model.loaded(*trained.networks.values())
    ends = torch.zeros(4, len(FEATURES))
    ends[0, 0], ends[1, 0], ends[2, 1], ends[3, 1] = -1, 1, -1, 1
    low, high, bad, good = net(ends).tolist()
    if loss == "squared":  # ratings are 3 + the second feature: by their mean alone the error is 1
        assert best["valid_loss"] < 0.7 and [bad, good] == pytest.approx([2, 4], abs=0.7)
    else:
        assert best["valid_ndcg"] > 0.8 and high - low > 3


def test_a_user_s_mistake_keeps_its_class(spark, examples, tmp_path):
    table = pq.read_table(examples)
    pq.write_table(table.filter(pa.compute.equal(table["fold"], 0)), tmp_path / "train_only.parquet")
    with pytest.raises(BadInput, match="no two folds with an action"):
        run(spark, tmp_path / "train_only.parquet", 2)
    short = pa.array([[0.0]] * len(table), pa.list_(pa.float32()))
    narrow = table.set_column(table.schema.get_field_index("features"), "features", short)
    pq.write_table(narrow, tmp_path / "narrow.parquet")
    with pytest.raises(BadInput, match=rf"expected {len(FEATURES)} features per example, found 1; run ranker_examples"):
        run(spark, tmp_path / "narrow.parquet", 2)
