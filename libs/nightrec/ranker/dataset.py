"""The examples as one Arrow file per host, mapped into memory by its training processes, in canonical order.

Letters: N examples of a split, F features. A list is a user's candidates at one cut. The order of fold, cut, user, item
does not depend on how the table's files were written. The file's pages belong to the system, which holds each of them
once for all processes of the host and drops what nobody touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import Dataset, ParquetFragmentScanOptions

from nightrec.errors import BadInput
from nightrec.features import FEATURES
from nightrec.lifeline import progress
from nightrec.tables import EVENT_TYPES

Read = Callable[[], Dataset]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_FILE = "examples.arrow"
_SCHEMA = pa.schema({
    "fold": pa.int32(),
    "list": pa.int32(),  # a number per cut and user, ascending within a fold
    "item": pa.int32(),  # a number per item id, ascending with it
    "label": pa.float32(),
    "kinds": pa.int32(),  # bit n: acted on by EVENT_TYPES[n]
    "rating": pa.float32(),  # NaN without one
    "features": pa.list_(pa.float32(), len(FEATURES)),
})
_BITS = 1 << np.arange(len(EVENT_TYPES))
# Rows that pass through memory at once.
_ROWS = 65_536


@dataclass(frozen=True)
class Split:
    """N examples in order of fold, cut, user and item, from row `first` of all. `folds`, `lists` and `items` (N,) are
    numbers, `labels` (N,) 0 or 1, `kinds` (N,) of events as bits, `ratings` (N,) NaN where there is none; `features`
    (N, F).

    Views of a mapped file, not to be written to.
    """

    first: int
    folds: Ints
    lists: Ints
    items: Ints
    labels: Floats
    kinds: Ints
    ratings: Floats
    features: Floats

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> Split:
        """The rows from `start` up to `stop`, without a copy."""
        rows = slice(start, stop)
        return Split(
            self.first + start, self.folds[rows], self.lists[rows], self.items[rows], self.labels[rows],
            self.kinds[rows], self.ratings[rows], self.features[rows],
        )  # fmt: skip

    def scale(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and population standard deviation (F,) of the features, in double precision, block by block."""
        blocks = [self.features[start : start + _ROWS] for start in range(0, len(self), _ROWS)]
        mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / len(self)
        squares = sum(((block - mean) ** 2).sum(0) for block in blocks)
        return mean, np.sqrt(squares / len(self))


@dataclass(frozen=True)
class Examples:
    """What is learned from, and what is judged: all examples of each fold but 0, lessons among them."""

    lessons: Split
    judged: Split

    @property
    def windows(self) -> list[int]:
        """The folds on which something can be judged: those with a positive, but the first of them."""
        return list(map(int, np.unique(self.lessons.folds[self.lessons.labels > 0])[1:]))

    def before(self, fold: int) -> Split:
        """The lessons of the folds before one."""
        return self.lessons.part(0, int(np.searchsorted(self.lessons.folds, fold)))

    def of(self, fold: int) -> Split:
        """All examples of a fold."""
        start, stop = np.searchsorted(self.judged.folds, [fold, fold + 1])
        return self.judged.part(int(start), int(stop))


def write(rows: Dataset, folder: Path) -> Keys:
    """Put lessons and judged examples into FOLDER/examples.arrow, a record batch each: 4 F + 24 bytes a row; the keys.

    `rows` are those of one version of the table. They are read twice, keys first. Memory: 130 MB and 110 bytes per
    example (10 million: 1.2 GB), but no feature beyond a block
    at a time; the folder holds the features twice for a moment.
    Raises BadInput where fewer than two folds have a positive, or features of another length than FEATURES.
    """
    keys = _canonical(rows)
    # Arrow writes a record batch from one piece of memory: a file again, for the features need not fit otherwise.
    scratch = folder / "features"
    features = np.memmap(scratch, np.float32, "w+", shape=(len(keys.lists), len(FEATURES)))
    start = 0
    for batch in _batches(rows, ["features"]):
        values = batch["features"].flatten().to_numpy(zero_copy_only=False)
        if len(values) != len(batch) * len(FEATURES):
            raise BadInput(
                f"ranker_examples: expected {len(FEATURES)} features per example, found {len(values) / len(batch):g}; "
                "run ranker_examples for this date again"
            )
        values = values.reshape(len(batch), len(FEATURES))
        for places in keys.places:
            at = places[start : start + len(batch)]
            features[at[at >= 0]] = values[at >= 0]
        start += len(batch)
    with pa.OSFile(str(folder / _FILE), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        for part in (slice(0, keys.lessons), slice(keys.lessons, None)):
            values = pa.FixedSizeListArray.from_arrays(pa.array(features[part].reshape(-1)), len(FEATURES))
            columns = [pa.array(column[part]) for column in (keys.folds, keys.lists, keys.items, *keys.told)]
            writer.write_batch(pa.record_batch([*columns, values], schema=_SCHEMA))
    scratch.unlink()
    return keys


def mapped(folder: Path) -> Examples:
    """The examples of a file that `write` made, without reading them."""
    file = pa.ipc.open_file(pa.memory_map(str(folder / _FILE)))
    lessons = _split(file.get_batch(0), 0)
    return Examples(lessons, _split(file.get_batch(1), len(lessons)))


def _split(batch: pa.RecordBatch, first: int) -> Split:
    features = batch["features"].flatten().to_numpy().reshape(-1, len(FEATURES))
    folds, lists, items, labels, kinds, ratings = (batch[name].to_numpy() for name in _SCHEMA.names[:-1])
    return Split(first, folds, lists, items, labels, kinds, ratings, features)


@dataclass(frozen=True)
class Keys:
    """Of each row as it comes its `places` in the file, among the lessons and among the judged, -1 for none. In the
    file's order, of which the first so many are `lessons`: fold; cut, user and item by number in `cut_dates`,
    `user_ids` and `item_ids`, which ascend; its list; and the other columns `told`."""

    places: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    lessons: int
    folds: Ints
    cuts: Ints
    users: Ints
    items: Ints
    cut_dates: pa.Array
    user_ids: pa.Array
    item_ids: pa.Array
    lists: Ints
    told: tuple[npt.NDArray[np.number], ...]


def _canonical(rows: Dataset) -> Keys:
    names = ["cut_date", "user_id", "item_id"]
    keys: dict[str, list[pa.DictionaryArray]] = {name: [] for name in names}
    labels, kinds, ratings = [np.empty(0, np.float32)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    fold, lesson = [np.empty(0, np.int32)], [np.empty(0, np.bool_)]
    for batch in _batches(rows, ["fold", "is_lesson", "label", "kinds", "rating", *names]):
        for name, found in keys.items():
            found.append(batch[name].dictionary_encode())
        labels.append(batch["label"].to_numpy(zero_copy_only=False).astype(np.float32))
        kinds.append(_bits(batch["kinds"]))
        ratings.append(pc.fill_null(batch["rating"], np.nan).to_numpy(zero_copy_only=False).astype(np.float32))
        fold.append(batch["fold"].to_numpy())
        lesson.append(batch["is_lesson"].to_numpy(zero_copy_only=False))
    label, folds, teaches = np.concatenate(labels), np.concatenate(fold), np.concatenate(lesson)
    if len(np.unique(folds[label > 0])) < 2:
        raise BadInput(
            "ranker_examples: no two folds with an action, one to learn from and one to be judged on; "
            "run ranker_examples for this date first"
        )
    (cuts, cut_dates), (users, user_ids), (items, item_ids) = (_ranks(keys.pop(name)) for name in names)
    order = np.lexsort((items, users, cuts, folds))
    begins = np.zeros(len(order), np.int32)
    for part in (folds, cuts, users):
        begins[1:] |= np.diff(part[order]) != 0
    lists = np.empty_like(begins)
    lists[order] = np.cumsum(begins, dtype=np.int32)
    lessons, judged = order[teaches[order]], order[folds[order] > 0]
    places = (_places(lessons, 0, len(order)), _places(judged, len(lessons), len(order)))
    row = np.concatenate([lessons, judged])
    told = (label[row], np.concatenate(kinds)[row], np.concatenate(ratings)[row])
    of_row = (folds[row], cuts[row], users[row], items[row])
    return Keys(places, len(lessons), *of_row, cut_dates, user_ids, item_ids, lists[row], told)


def _places(rows: npt.NDArray[np.int64], first: int, of: int) -> npt.NDArray[np.int64]:
    """Where each of so many rows is, when `rows` lie one after another from `first`; -1 for those not among them."""
    places = np.full(of, -1)
    places[rows] = np.arange(first, first + len(rows))
    return places


def _bits(kinds: pa.ListArray) -> Ints:
    """Each row's event types as bits; unknown ones are left out."""
    codes = pc.index_in(kinds.flatten(), value_set=pa.array(EVENT_TYPES)).fill_null(-1).to_numpy()
    rows = np.repeat(np.arange(len(kinds)), kinds.value_lengths().fill_null(0).to_numpy())
    return np.bincount(rows, np.where(codes < 0, 0, _BITS[codes]), len(kinds)).astype(np.int32)


def _ranks(chunks: list[pa.DictionaryArray]) -> tuple[Ints, pa.Array]:
    """A number per value, in the order of the values: four bytes where an id takes ten times that; and the values."""
    unified = pa.chunked_array(chunks).unify_dictionaries().chunks
    values = unified[0].dictionary
    order = pc.array_sort_indices(values)
    ranks = np.empty(len(order), np.int32)
    ranks[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    codes: npt.NDArray[np.int32] = np.concatenate([chunk.indices.to_numpy() for chunk in unified])
    return ranks[codes], values.take(order)


def _batches(rows: Dataset, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows in the order of their files, in one thread: the second pass must see them as the first did.

    Nothing is read ahead: left at their defaults, files of 260 MB were held in memory whole.
    """
    options = ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    for batch in rows.to_batches(
        columns=columns, batch_size=_ROWS, use_threads=False, batch_readahead=1, fragment_readahead=1,
        fragment_scan_options=options,
    ):
        progress()
        yield batch
