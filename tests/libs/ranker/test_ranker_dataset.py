"""The mapped file of examples: canonical order whatever the files, views of the mapping, named refusals. No Spark."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from nightrec.errors import BadInput
from nightrec.features import FEATURES
from nightrec.ranker.dataset import mapped_splits, write

EARLY, LATE, VALID = dt.date(2026, 1, 13), dt.date(2026, 1, 27), dt.date(2026, 2, 10)
# In canonical order. The first feature is the row's number, the others are its hundredth.
ROWS = [
    ("train", EARLY, "u10", "i1", 0.0),
    ("train", EARLY, "u2", "i1", 1.0),  # ids are strings: u10 before u2
    ("train", LATE, "u10", "i1", 0.0),  # a later cut comes after every user of an earlier one
    ("train", LATE, "u10", "i2", 1.0),
    ("valid", VALID, "u1", "i9", 0.0),
    ("valid", VALID, "u10", "i1", 1.0),
    ("valid", VALID, "ü", "i1", 0.0),
]


def table(rows: list[tuple[str, dt.date, str, str, float]], width: int = len(FEATURES)) -> pa.Table:
    columns = dict(zip(("split", "cut_date", "user_id", "item_id", "label"), zip(*rows, strict=True), strict=True))
    features = [[float(ROWS.index(row)), *[ROWS.index(row) / 100] * (width - 1)] for row in rows]
    return pa.table({
        **{name: list(values) for name, values in columns.items()},
        "features": pa.array(features, pa.list_(pa.float32())),
    })


@pytest.mark.parametrize("group", [1, 3, 100])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_is_canonical_whatever_the_files(tmp_path: Path, group: int, seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(len(ROWS))
    for part, rows in enumerate((mixed[:4], mixed[4:])):
        pq.write_table(table([ROWS[row] for row in rows]), tmp_path / f"{part}.parquet", row_group_size=group)
    out = tmp_path / "out"
    out.mkdir()
    write(pads.dataset([str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")]), out)

    train, valid = mapped_splits(out)

    assert [len(train), len(valid)] == [4, 3]
    for split, first in ((train, 0), (valid, 4)):
        rows = ROWS[first : first + len(split)]
        assert split.labels.tolist() == [row[4] for row in rows]
        assert split.features[:, 0].tolist() == list(range(first, first + len(split)))
        np.testing.assert_allclose(split.features[:, 1:] * 100, split.features[:, :1].repeat(len(FEATURES) - 1, 1))
        users = [row[2] for row in rows]
        assert [split.users[a] == split.users[b] for a in range(len(users)) for b in range(len(users))] == [
            a == b for a in users for b in users
        ]
    # Only the file is left, and the arrays are its pages, not copies.
    assert [file.name for file in out.iterdir()] == ["examples.arrow"]
    mapped = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(out) in line]
    spans = [tuple(int(end, 16) for end in span.split("-")) for span in mapped]
    for array in (train.features, valid.features, train.labels, valid.users):
        assert any(start <= array.ctypes.data < end for start, end in spans)
        assert not array.flags.writeable


def test_scale_is_the_mean_and_population_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightrec.ranker.dataset._ROWS", 3)  # several blocks
    write(pads.dataset(table(ROWS)), tmp_path)
    train, _ = mapped_splits(tmp_path)
    mean, std = train.scale()
    np.testing.assert_allclose(mean[:2], [1.5, 0.015], rtol=1e-6)
    np.testing.assert_allclose(std[:2], [np.sqrt(1.25), np.sqrt(1.25) / 100], rtol=1e-6)


def test_what_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    cases = [
        (table(ROWS[:4]), "no valid example with an action; run ranker_examples for this date first"),
        (table(ROWS[4:]), "no train example with an action"),
        (table([ROWS[0], *ROWS[4:]]), "no train example with an action"),  # one, but without an action
        (table(ROWS)[:0], "no train example"),
        (table(ROWS, width=2), f"expected {len(FEATURES)} features per example, found 2; run ranker_examples"),
    ]
    for rows, message in cases:
        with pytest.raises(BadInput, match=message):
            write(pads.dataset(rows), tmp_path)
