"""A run is a row and a folder for TensorBoard; again, it is one row and one folder."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nightrec.runs import Run, draw, record
from nightrec.store import Store, arrow
from nightrec.tables import RUNS

RUN = Run(
    "ranker", "ranker-20260310-ab", dt.date(2026, 3, 10), {"hidden": (64, 32), "dropout": 0.1, "blend": "best"},
    {"ndcg_all": 0.25}, {"valid_loss": [0.5, 0.25, 0.375], "valid_ndcg": [0.1, 0.2, 0.15]}, {"ranker_examples": 7},
)  # fmt: skip


def test_a_row_and_curves(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        record(store, str(tmp_path), RUN)
    (row,) = arrow(store.warehouse, RUNS).to_pylist()
    assert dict(row["settings"]) == {"hidden": "(64, 32)", "dropout": "0.1", "blend": "best"}
    assert dict(row["curves"])["valid_loss"] == [0.5, 0.25, 0.375] and dict(row["data_versions"]) == RUN.data_versions
    assert (row["kind"], row["run_id"], dict(row["figures"])) == ("ranker", RUN.run_id, {"ndcg_all": 0.25})
    folder = tmp_path / "tensorboard" / RUN.run_id
    seen = EventAccumulator(str(folder)).Reload()
    assert {"valid_loss", "valid_ndcg", "hparam/ndcg_all"} == set(seen.Tags()["scalars"])
    points = [(event.step, event.value) for event in seen.Scalars("valid_ndcg")]
    assert points == [(step, pytest.approx(value)) for step, value in enumerate((0.1, 0.2, 0.15), 1)]


def test_reports_elsewhere_have_no_curves(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record(store, "s3://bucket/reports", RUN)
    assert arrow(store.warehouse, RUNS).num_rows == 1 and not (tmp_path / "s3:").exists()


def test_an_earlier_attempts_curves_are_gone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.out.tfevents.1.old").write_bytes(b"")
    draw(tmp_path / "run", RUN)
    assert not (tmp_path / "run" / "events.out.tfevents.1.old").exists()
