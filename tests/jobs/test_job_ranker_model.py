"""From examples to one row of ranker_models and a weights file that matches it."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import numpy as np
import pytest
from nightrec_jobs import ranker_model
from nightrec_jobs.ranker_model import run

from nightrec.errors import TrainingFailed
from nightrec.features import FEATURES
from nightrec.models import ranker_model_id
from nightrec.night import Night
from nightrec.ranker import members, model
from nightrec.ranker.blend import PLAIN
from nightrec.report.models import serving
from nightrec.store import arrow
from nightrec.tables import RANKER_EXAMPLES, RANKER_MODELS

AS_OF = dt.date(2026, 3, 10)


@pytest.fixture
def training(spark, config, store) -> Night:
    ranker = config.ranker.model_copy(update={"epochs": 2, "batch": 64, "hidden": (8,), "trees": 5})
    return Night(spark, config.model_copy(update={"ranker": ranker}), AS_OF, store=store)


@pytest.fixture
def examples(store) -> None:
    values = np.random.default_rng(2).normal(size=(400, len(FEATURES)))
    store.put(RANKER_EXAMPLES, [
        {"as_of_date": AS_OF, "cut_date": AS_OF, "fold": n % 3, "is_lesson": True, "user_id": f"u{n % 7}",
         "item_id": f"i{n}", "label": float(row[0] > 0), "kinds": ["view"] if row[0] > 0 else [], "rating": None,
         "features": row.tolist()}
        for n, row in enumerate(values)
    ], {"as_of_date": AS_OF})


@pytest.mark.usefixtures("examples")
def test_one_row_and_its_weights_and_the_same_again_when_run_again(training, store, monkeypatch):
    def killed(*arguments):
        import horovod.torch as hvd

        from nightrec import failpoint
        from nightrec.ranker.train import train

        failpoint._passed.clear()
        if hvd.rank() == 1:
            # This process grows 5 trees of its kind for each of two folds, and for all.
            os.environ[failpoint.PLACE] = "ranker_model.tree#12:kill"
        return train(*arguments)

    # The first attempt is killed while the second fold's trees grow: there is no model, and the books say why.
    monkeypatch.setattr(ranker_model, "train", killed)
    with pytest.raises(TrainingFailed, match=r"^training process 1 of 2 \(pid \d+ on .*\) died without a word"):
        training.run("ranker_model", run)
    monkeypatch.undo()
    assert not arrow(store.warehouse, RANKER_MODELS).num_rows
    assert serving(store.warehouse, AS_OF).failures[0].startswith("ranker_model: training process 1 of 2")
    kept = Path(training.config.paths.models) / ranker_model_id(AS_OF, training.config) / "checkpoint"
    names = {"network_binary", "network_listwise", "binary", "ranking"}
    assert {file.name.split(".")[1] for file in kept.glob("fold-1.*.npz")} == names
    # What a training of an earlier date has left; nobody will go on from it.
    (Path(training.config.paths.models) / "ranker-20260301-abcd" / "checkpoint").mkdir(parents=True)

    books = training.run("ranker_model", run)

    (row,) = arrow(store.warehouse, RANKER_MODELS).to_pylist()
    assert row["model_id"] == ranker_model_id(AS_OF, training.config)
    assert row["as_of_date"] == AS_OF and row["features"] == list(FEATURES) and row["processes"] == 2
    assert dict(row["data_versions"]) == {"ranker_examples": store.version(RANKER_EXAMPLES)}
    assert dict(row["settings"])["hidden"] == "(8,)"
    names = ("network_binary", "network_listwise")
    assert [(one.pop("network"), one.pop("epoch")) for one in row["epochs"]] == [(n, e) for n in names for e in (1, 2)]
    assert all(np.isfinite(list(epoch.values())).all() for epoch in row["epochs"])
    assert {name: epoch in (1, 2) for name, epoch in row["best_epochs"]} == dict.fromkeys(names, True)
    file = Path(training.config.paths.models) / row["weights"]
    assert file.parts[-2:] == (row["model_id"], "model.safetensors")
    ranker = members.unpacked(model.read(file, row["weights_sha256"]))
    assert set(ranker.networks) == set(names) and ranker.feature_count == len(FEATURES)
    by_kind = {line["kind"]: line for line in row["calibration"]}
    assert set(by_kind) == {"any", "view"} and by_kind["view"]["positives"] == by_kind["any"]["positives"] > 0
    told = {name for name, _ in row["choices"] if not name.startswith("rarer by ")}
    assert told == {"network", "trees", "all", *PLAIN}
    assert books.rows("written") == 1
    took = dict(books.parts)
    assert set(took) == {"network", "trees", "choosing"} and min(took.values()) > 0
    assert sum(took.values()) < books.seconds

    # Nothing is left of the checkpoint: a second training is one that nobody disturbed.
    assert [path.name for path in Path(training.config.paths.models).rglob("*")] == [file.parent.name, file.name]
    assert not serving(store.warehouse, AS_OF).failures
    training.run("ranker_model", run)
    again, first = arrow(store.warehouse, RANKER_MODELS).to_pylist()[0], row
    assert (again["weights_sha256"], again["choices"]) == (first["weights_sha256"], first["choices"])


def test_nothing_to_learn_from_is_a_row_without_weights(training, store):
    store.put(RANKER_EXAMPLES, [
        {"as_of_date": AS_OF, "cut_date": AS_OF, "fold": 0, "is_lesson": True, "user_id": "u", "item_id": "i",
         "label": 1.0, "kinds": [], "rating": None, "features": [0.0] * len(FEATURES)}
    ], {"as_of_date": AS_OF})
    books = training.run("ranker_model", run)
    (row,) = arrow(store.warehouse, RANKER_MODELS).to_pylist()
    assert row["weights"] == "" and not row["best_epochs"] and not row["epochs"] and not row["choices"]
    assert [reason for fate, reason, _ in books.lines if fate == "unlearned"] == [
        "users who acted before and after a cut: in 1 of 2 folds; no ranker yet"
    ]
    assert not Path(training.config.paths.models).exists()
