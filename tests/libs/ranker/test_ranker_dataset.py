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
from nightrec.ranker.dataset import mapped, write
from nightrec.tables import EVENT_TYPES

EARLY, LATER, LATE, LAST = dt.date(2026, 1, 13), dt.date(2026, 1, 20), dt.date(2026, 1, 27), dt.date(2026, 2, 10)
# In canonical order. The first feature is the row's number, the others are its hundredth.
ROWS = [
    (0, EARLY, "u10", "i1", 0.0, True),
    (0, EARLY, "u2", "i1", 1.0, True),  # ids are strings: u10 before u2
    (1, LATER, "u2", "i1", 0.0, True),  # the same user's list at the next cut
    (2, LATE, "u10", "i1", 0.0, False),  # a later cut comes after every user of an earlier one
    (2, LATE, "u10", "i2", 1.0, True),
    (3, LAST, "u1", "i9", 0.0, False),
    (3, LAST, "u10", "i1", 1.0, True),
    (3, LAST, "ü", "i1", 0.0, True),
]
LESSONS, JUDGED = [0, 1, 2, 4, 6, 7], [2, 3, 4, 5, 6, 7]


def table(rows: list[tuple[int, dt.date, str, str, float, bool]], width: int = len(FEATURES)) -> pa.Table:
    names = ("fold", "cut_date", "user_id", "item_id", "label", "is_lesson")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    features = [[float(ROWS.index(row)), *[ROWS.index(row) / 100] * (width - 1)] for row in rows]
    return pa.table({
        **{name: list(values) for name, values in columns.items()},
        "fold": pa.array(columns["fold"], pa.int32()),
        "kinds": [["view", "rating"] if row[4] else [] for row in rows],
        "rating": pa.array([float(row[3][1:]) if row[4] else None for row in rows], pa.float64()),
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

    examples = mapped(out)

    # Fold 1 has nothing that was acted on: nothing can be judged there.
    assert examples.windows == [2, 3]
    parts = [
        (examples.lessons, LESSONS, 0), (examples.judged, JUDGED, 6), (examples.before(2), [0, 1, 2], 0),
        (examples.before(3), [0, 1, 2, 4], 0), (examples.of(2), [3, 4], 7), (examples.of(3), [5, 6, 7], 9),
    ]  # fmt: skip
    for split, numbers, first in parts:
        rows = [ROWS[number] for number in numbers]
        assert (len(split), split.first) == (len(rows), first) and split.folds.tolist() == [row[0] for row in rows]
        assert split.labels.tolist() == [row[4] for row in rows]
        assert split.features[:, 0].tolist() == numbers
        np.testing.assert_allclose(split.features[:, 1:] * 100, split.features[:, :1].repeat(len(FEATURES) - 1, 1))
        # A list is a cut's and a user's: u2's of two cuts touch.
        lists = [row[1:3] for row in rows]
        assert [bool(a == b) for a in split.lists for b in split.lists] == [a == b for a in lists for b in lists]
        assert (np.diff(split.lists) >= 0).all()
        assert [{0: "i1", 1: "i2", 2: "i9"}[item] for item in split.items] == [row[3] for row in rows]
        assert [[EVENT_TYPES[n] for n in range(9) if bits >> n & 1] for bits in split.kinds] == [
            ["view", "rating"] if row[4] else [] for row in rows
        ]
        np.testing.assert_array_equal(split.ratings, [float(row[3][1:]) if row[4] else np.nan for row in rows])
    # Only the file is left, and the arrays are its pages, not copies.
    assert [file.name for file in out.iterdir()] == ["examples.arrow"]
    pages = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(out) in line]
    spans = [tuple(int(end, 16) for end in span.split("-")) for span in pages]
    for array in (examples.lessons.features, examples.of(3).features, examples.before(3).labels, split.lists):
        assert any(start <= array.ctypes.data < end for start, end in spans)
        assert not array.flags.writeable


def test_scale_is_the_mean_and_population_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightrec.ranker.dataset._ROWS", 2)  # several blocks
    write(pads.dataset(table(ROWS)), tmp_path)
    mean, std = mapped(tmp_path).lessons.part(0, 3).scale()
    np.testing.assert_allclose(mean[:2], [1, 0.01], rtol=1e-6)
    np.testing.assert_allclose(std[:2], [np.sqrt(2 / 3), np.sqrt(2 / 3) / 100], rtol=1e-6)


def test_what_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    cases = [
        (table(ROWS[:3]), "no two folds with an action, .*; run ranker_examples for this date first"),
        (table(ROWS[5:]), "no two folds with an action"),
        (table([ROWS[0], *ROWS[5:]]), "no two folds with an action"),  # two, one without an action
        (table(ROWS)[:0], "no two folds"),
        (table(ROWS, width=2), f"expected {len(FEATURES)} features per example, found 2; run ranker_examples"),
    ]
    for rows, message in cases:
        with pytest.raises(BadInput, match=message):
            write(pads.dataset(rows), tmp_path)
