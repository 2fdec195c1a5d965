"""The examples as arrays, in an order that does not depend on how they were written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightrec.errors import BadInput
from nightrec.ranker.features import FEATURES

COLUMNS = ["split", "cut_date", "user_id", "item_id", "label", "features"]
_KEY = ["cut_date", "user_id", "item_id"]

Read = Callable[[], pa.Table]


@dataclass(frozen=True)
class Split:
    """N examples in order of cut, user and item: `users` (N,) a number per user; `features` (N, F), `labels` (N,)."""

    users: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


def splits(read: Read) -> tuple[Split, Split]:
    """The train and the valid split of a table with COLUMNS.

    Memory: 4 bytes x F x examples, twice while sorting (10 million examples of 27 features: 2.2 GB).
    Raises BadInput where a split has no positive, or features of another length than FEATURES.
    """
    table = read()
    split = table["split"]
    train, valid = (_split(table.filter(pc.equal(split, pa.scalar(name))), name) for name in ("train", "valid"))
    return train, valid


def _split(table: pa.Table, name: str) -> Split:
    labels = _numbers(table["label"])
    if not labels.any():
        raise BadInput(f"ranker_examples: no {name} example with an action; run ranker_examples for this date first")
    values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["features"].chunks])
    if len(values) != len(labels) * len(FEATURES):
        raise BadInput(
            f"ranker_examples: expected {len(FEATURES)} features per example, found {len(values) / len(labels):g}; "
            "run ranker_examples for this date again"
        )
    order = pc.sort_indices(table, sort_keys=[(column, "ascending") for column in _KEY]).to_numpy()
    users = table["user_id"].take(order).combine_chunks().dictionary_encode().indices.to_numpy()
    return Split(
        users=users.astype(np.int64),
        features=values.astype(np.float32, copy=False).reshape(-1, len(FEATURES))[order],
        labels=labels[order],
    )


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = column.to_numpy().astype(np.float32)
    return values
