"""What a shop could do without nightrec: simple lists as of a cut, scored by blocks of users.

Letters: U users of a block, N items on offer as of the cut. A method first learns from what the log says of the items
(`Items`), on the driver; what it returns then scores blocks of histories on the executors. None of them knows anything
but events up to the cut; all are masked and cut alike, ties by item number, which follows the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit
from pyspark.sql import DataFrame
from scipy import sparse

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Days of recent users; column len(WINDOWS) of Items.users is ever.
WINDOWS = (7, 14, 28)
EVER = len(WINDOWS)
# Users scored at once: their scores of 20,000 items take 40 MB.
_USERS = 512
HISTORY = "user_id string, items array<int>, counts array<int>, ages array<int>"
_LISTS = "user_id string, method string, items array<int>"


@dataclass(frozen=True)
class Items:
    """N items on offer by number, in byte order of `item_id`: `users` (N x 4) who acted on each in WINDOWS and ever,
    `together` (N x N, sparse) users who acted on both, on the diagonal those ever."""

    item_id: pa.Array
    users: Doubles
    together: Any

    @property
    def trend(self) -> Floats:
        """N: recent users against what an item of that size has gathered."""
        trend: Floats = ((self.users[:, EVER - 1] + 1) / np.sqrt(self.users[:, EVER] + 1)).astype(np.float32)
        return trend


@dataclass(frozen=True)
class Histories:
    """U x N, sparse: `counts` of a user's events with an item, and `ages`: days since the last of them, plus one."""

    counts: Any
    ages: Any

    @classmethod
    def of(cls, batch: pa.RecordBatch, width: int) -> Histories:
        """From columns HISTORY; no item twice in a row."""
        lengths = batch["items"].value_lengths().to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        columns = batch["items"].flatten().to_numpy()
        values = (batch[name].flatten().to_numpy().astype(np.float64) for name in ("counts", "ages"))
        counts, ages = (
            sparse.csr_matrix((value + add, columns, offsets), shape=(len(lengths), width))
            for value, add in zip(values, (0, 1), strict=True)
        )
        return cls(counts, ages)

    @property
    def seen(self) -> Any:
        """U x N: ones."""
        return sparse.csr_matrix((np.ones(self.counts.nnz), self.counts.indices, self.counts.indptr), self.counts.shape)


Score = Callable[[Histories], Floats]
Method = Callable[[Items], Score]


def popularity(window: int) -> Method:
    """By the users of a window: its place in WINDOWS, or EVER."""

    def learn(items: Items) -> Score:
        row = items.users[:, window].astype(np.float32)
        return lambda histories: np.tile(row, (histories.counts.shape[0], 1))

    return learn


def habit(half_life: float) -> Method:
    """Own events, of which each pair's count halves with every `half_life` days since the last; then the popular."""

    def learn(items: Items) -> Score:
        recent = items.users[:, EVER - 1]
        # Below every own item: 40 half-lives are worth 1e-12.
        fill = (1e-12 * recent / max(recent.max(initial=0), 1)).astype(np.float32)

        def score(histories: Histories) -> Floats:
            own = histories.counts.copy()
            own.data = own.data * np.maximum(0.5 ** ((histories.ages.data - 1) / half_life), 1e-11)
            scores: Floats = np.asarray(own.todense(), np.float32) + fill
            return scores

        return score

    return learn


def cosine(shrink: float) -> Method:
    """The sum over own items of n_ij / (sqrt(n_i n_j) + shrink) (Sarwar et al. 2001)."""

    def learn(items: Items) -> Score:
        near = items.together.tocoo()
        ever = items.together.diagonal()
        similarity = near.data / (np.sqrt(ever[near.row] * ever[near.col]) + shrink)
        kept = near.row != near.col
        table = sparse.csr_matrix((similarity[kept], (near.row[kept], near.col[kept])), near.shape)
        return lambda histories: np.asarray((histories.seen @ table).todense(), np.float32)

    return learn


def ease(penalty: float) -> Method:
    """The linear model without self-similarity that is best in closed form (Steck 2019, "Embarrassingly Shallow
    Autoencoders for Sparse Data"). N x N dense: for catalogues of some thousand items."""

    def learn(items: Items) -> Score:
        inverse = np.linalg.inv(np.asarray(items.together.todense(), np.float64) + penalty * np.eye(len(items.item_id)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        table = weights.astype(np.float32)
        return lambda histories: np.asarray(histories.seen.astype(np.float32) @ table)

    return learn


def trending(method: Method) -> Method:
    """Another method's scores times the items' trend; scores below 0 stay as they are."""

    def learn(items: Items) -> Score:
        scored, trend = method(items), items.trend

        def score(histories: Histories) -> Floats:
            scores = scored(histories)
            return np.where(scores > 0, scores * trend, scores)

        return score

    return learn


def lists(
    histories: DataFrame, items: Items, methods: Mapping[str, Method], *, k: int, repeats_allowed: bool
) -> DataFrame:
    """The k best items of each method for each row of `histories` (HISTORY): user_id, method, `items` by number.

    Items of the history are left out, unless repeats are allowed; ties go to the smaller number.
    """
    learned = {name: method(items) for name, method in methods.items()}
    width = len(items.item_id)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, _USERS):
                part = batch.slice(start, _USERS)
                block = Histories.of(part, width)
                for name, score in learned.items():
                    scores = score(block)
                    if not repeats_allowed:
                        scores[block.counts.nonzero()] = -np.inf
                    yield _listed(part["user_id"], name, *best(scores, k))

    return histories.mapInArrow(work, _LISTS)


def best(scores: Floats, k: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Columns of each row's k largest scores above minus infinity, best first, ties by column; and how many there are.
    """
    columns, counts = np.zeros((len(scores), k), np.int32), np.zeros(len(scores), np.int32)
    _best(scores, columns, counts)
    return columns, counts


@njit(cache=True, nogil=True)
def _best(scores: Any, columns: Any, counts: Any) -> None:
    k = columns.shape[1]
    for row in range(len(scores)):
        for column in range(scores.shape[1]):
            score, count = scores[row, column], counts[row]
            if score == -np.inf or (count == k and score <= scores[row, columns[row, k - 1]]):
                continue
            place = min(count, k - 1)
            while place > 0 and score > scores[row, columns[row, place - 1]]:
                columns[row, place] = columns[row, place - 1]
                place -= 1
            columns[row, place] = column
            counts[row] = min(count + 1, k)


def _listed(
    users: pa.Array, method: str, columns: npt.NDArray[np.int32], counts: npt.NDArray[np.int32]
) -> pa.RecordBatch:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = columns[np.arange(columns.shape[1]) < counts[:, None]]
    return pa.RecordBatch.from_pydict({
        "user_id": users,
        "method": pa.array([method] * len(users)),
        "items": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.int32())),
    })
