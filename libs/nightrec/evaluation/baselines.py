"""What a shop could do without nightrec: simple scores as of a cut, for blocks of users.

Letters: U users of a block, N items on offer as of the cut, R reference users. A method first learns from what the log
says of the items (`Items`), on the driver; what it returns then scores blocks of histories on the executors. None of
them knows anything but events up to the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from scipy import sparse

from nightrec.serving import linear

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
# Of pairs of items, by their numbers, and what their rows' product is.
Similarity = Callable[[Ints, Ints, Doubles], Doubles]

# Days of recent users; column EVER of Items.users is ever.
WINDOWS = (1, 7, 14, 28)
EVER = len(WINDOWS)
# The family that knows what to show whom without a history.
BY_SEGMENT = "segment popularity"
# Items whose products with all others are looked at at once: 40 MB of 20,000.
_ROWS = 256


@dataclass(frozen=True)
class Histories:
    """U users by number (a hash of the id); U x N, sparse: `counts` of a user's events with an item, and `ages`: days
    since the last of them, plus one; `segment` (U): null where it is not known."""

    users: npt.NDArray[np.int64]
    counts: Any
    ages: Any
    segment: pa.ChunkedArray

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch], width: int) -> Histories:
        """From columns _user, items (none twice in a row), counts, ages, and perhaps segment."""
        batches = list(batches)
        schema = {"_user": pa.int64(), **dict.fromkeys(("items", "counts", "ages"), pa.list_(pa.int32()))}
        narrow = [batch.select(list(schema)) for batch in batches]
        table = pa.Table.from_batches(narrow) if narrow else pa.schema(schema).empty_table()
        lists = {name: table[name].combine_chunks() for name in ("items", "counts", "ages")}
        offsets = np.concatenate([[0], np.cumsum(lists["items"].value_lengths().to_numpy())])
        columns = lists["items"].flatten().to_numpy()
        counts, ages = (
            sparse.csr_matrix(
                (lists[name].flatten().to_numpy() + np.float64(more), columns, offsets), (table.num_rows, width)
            )
            for name, more in (("counts", 0), ("ages", 1))
        )
        segments = [
            batch["segment"] if "segment" in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
            for batch in batches
        ]
        return cls(table["_user"].to_numpy(), counts, ages, pa.chunked_array(segments, pa.string()))

    @property
    def seen(self) -> Any:
        """U x N: ones."""
        ones = np.ones(self.counts.nnz, np.float32)
        return sparse.csr_matrix((ones, self.counts.indices, self.counts.indptr), self.counts.shape)


@dataclass(frozen=True)
class Items:
    """N items on offer by number, in byte order of `item_id`: `people` who acted on any; `users` (N x 4) who acted on
    each in WINDOWS and ever, `events` (N) ever; `references`: the histories of R users, who stand for all where there
    are more; `by_segment`: per one of WINDOWS the users (S x N, sparse) of each segment of `segment` (S)."""

    item_id: pa.Array
    people: int
    users: Doubles
    events: Doubles
    references: Histories
    segment: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    by_segment: Sequence[Any] = field(default=())

    @property
    def trend(self) -> Floats:
        """N: recent users against what an item of that size has gathered."""
        trend: Floats = ((self.users[:, EVER - 1] + 1) / np.sqrt(self.users[:, EVER] + 1)).astype(np.float32)
        return trend


Score = Callable[[Histories], Floats]
Method = Callable[[Items], Score]


def popularity(window: int) -> Method:
    """By the users of a window: its place in WINDOWS, or EVER."""

    def learn(items: Items) -> Score:
        row = items.users[:, window].astype(np.float32)
        return lambda histories: np.tile(row, (histories.counts.shape[0], 1))

    return learn


def segment_popularity(window: int, prior: float) -> Method:
    """By the users of a window (its place in WINDOWS) in the user's segment, everybody's most popular item with `prior`
    users more and others in proportion; by everybody's alone where the user has no segment."""

    def learn(items: Items) -> Score:
        everybody = items.users[:, window]
        shares = (prior * everybody / max(everybody.max(initial=0), 1)).astype(np.float32)
        # What is scored with goes to the executors: not all that is known of items.
        names = items.segment
        inside: Any = items.by_segment[window] if items.by_segment else None

        def score(histories: Histories) -> Floats:
            scores: Floats = np.tile(shares, (histories.counts.shape[0], 1))
            row = pc.index_in(histories.segment, value_set=names).fill_null(-1).to_numpy()
            known = np.flatnonzero(row >= 0)
            if len(known):
                scores[known] += inside[row[known]].toarray()
            return scores

        return score

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


def cosine(shrink: float, nearest: int) -> Method:
    """The sum over own items of n_ij / (sqrt(n_i n_j) + shrink) (Sarwar et al. 2001, "Item-Based Collaborative
    Filtering Recommendation Algorithms") of the references, where j is one of the `nearest` of i."""

    def learn(items: Items) -> Score:
        by_item = items.references.seen.T.tocsr()
        root = np.sqrt(np.diff(by_item.indptr))

        def similarity(rows: Ints, columns: Ints, both: Doubles) -> Doubles:
            found: Doubles = both / (root[rows] * root[columns] + shrink)
            found[rows == columns] = -np.inf
            return found

        table = _nearest(by_item, nearest, similarity)
        return lambda histories: np.asarray((histories.seen @ table).todense(), np.float32)

    return learn


def bm25(nearest: int, k1: float = 1.2, b: float = 0.75) -> Method:
    """Item to item through a users x items matrix weighted as by `implicit`'s BM25Recommender (`bm25_weight` of
    benfred/implicit, nearest_neighbours.py), items as documents and users as words; learned from the references.

    w_iu = c (k1 + 1) / (k1 (1 - b + b length_i / mean length) + c) (log N - log(1 + items of u)) of c events;
    similarity is the product of two items' rows, kept for the `nearest` of each, itself included; a score is the sum
    over own items, times their events.
    """

    def learn(items: Items) -> Score:
        documents = items.references.counts.T.tocoo()
        count, width = documents.data, documents.shape[0]
        lengths = np.bincount(documents.row, count, width)
        rarity = np.log(width) - np.log1p(np.bincount(documents.col, minlength=documents.shape[1]))
        norm = 1 - b + b * lengths / max(lengths.mean(), 1e-9)
        weights = count * (k1 + 1) / (k1 * norm[documents.row] + count) * rarity[documents.col]
        weighted = sparse.csr_matrix((weights, (documents.row, documents.col)), documents.shape)
        table = _nearest(weighted, nearest)
        return lambda histories: np.asarray((histories.counts.astype(np.float32) @ table).todense(), np.float32)

    return learn


def _nearest(weighted: Any, most: int, similarity: Similarity | None = None) -> Any:
    """N x N: the largest products of each row of `weighted` (N x R) with all rows, or the largest of what `similarity`
    makes of the products, ties by column, as float.

    Block by block: most items of a shop share some user, so that all products are as good as dense; to sort 11 million
    of them at once took 5 s and 0.6 GB where this takes 0.5 s. A grocer's 68,000 items share 300 million pairs.
    """
    other, width = weighted.T.tocsr(), weighted.shape[0]
    near, columns, starts = [], [], [np.zeros(1, np.int64)]
    for start in range(0, max(width, 1), _ROWS):
        found = weighted[start : start + _ROWS] @ other
        rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
        if similarity is not None:
            found.data = similarity(start + rows, found.indices, found.data)
        # Rows that share nothing are no neighbours; those whose product is below 0 are.
        products = np.full(found.shape, -np.inf)
        products[rows, found.indices] = found.data
        if most < width:
            chosen, counts = best(products, most)
            kept = np.arange(most) < counts[:, None]
            at = np.column_stack([np.nonzero(kept)[0], chosen[kept]])
        else:
            at = np.argwhere(products > -np.inf)
        columns.append(at[:, 1].astype(np.int32))
        near.append(products[at[:, 0], at[:, 1]].astype(np.float32))
        starts.append(np.bincount(at[:, 0], minlength=len(products)))
    return sparse.csr_matrix(
        (np.concatenate(near), np.concatenate(columns), np.cumsum(np.concatenate(starts))), (width, width)
    )


def neighbours(nearest: int) -> Method:
    """What the `nearest` references with the highest cosine to the user's items acted on, each as much as its cosine
    (Resnick et al. 1994, "GroupLens", for baskets). The user is no neighbour of its own."""

    def learn(items: Items) -> Score:
        users, seen = items.references.users, items.references.seen
        length = np.sqrt(np.maximum(np.diff(seen.indptr), 1)).astype(np.float32)
        by_item = sparse.diags(1 / length) @ seen

        def score(histories: Histories) -> Floats:
            own = np.sqrt(np.maximum(np.diff(histories.counts.indptr), 1)).astype(np.float32)
            alike = np.asarray((histories.seen @ by_item.T).todense(), np.float32) / own[:, None]
            alike[(alike <= 0) | (histories.users[:, None] == users)] = -np.inf
            columns, counts = best(alike, nearest)
            rows = np.repeat(np.arange(len(alike)), counts)
            columns = columns[np.arange(nearest) < counts[:, None]]
            near = sparse.csr_matrix((alike[rows, columns], (rows, columns)), alike.shape)
            return np.asarray((near @ seen).todense(), np.float32)

        return score

    return learn


def ease(penalty: float) -> Method:
    """The linear model without self-similarity that is best in closed form (Steck 2019, "Embarrassingly Shallow
    Autoencoders for Sparse Data"), learned from the references. N x N dense: for catalogues of some thousand items."""

    def learn(items: Items) -> Score:
        seen = items.references.seen
        table = linear.weights((seen.T @ seen).toarray().astype(np.float64), penalty).astype(np.float32)
        return lambda histories: np.asarray(histories.seen @ table)

    return learn


def ials(alpha: float, regularisation: float, rank: int = 64, iterations: int = 10, seed: int = 17) -> Method:
    """Weighted factorization of implicit feedback (Hu et al. 2008) by the engine of this package, on the references;
    every user is then solved exactly, as each night does. The weight of a pair is log(1 + events)."""
    from nightrec.als.objective import EXACT_STEPS, Objective, Rows

    def entries(matrix: Any) -> Rows:
        weights = np.log1p(matrix.data).astype(np.float32)
        return Rows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), weights)

    def learn(items: Items) -> Score:
        objective, counts = Objective(alpha, regularisation), items.references.counts
        users, columns = entries(counts), entries(counts.T.tocsr())
        factors = np.random.default_rng(seed).normal(0, 0.1, (counts.shape[1], rank)).astype(np.float32)
        people = np.zeros((counts.shape[0], rank), np.float32)
        for _ in range(iterations):
            objective.solve(users, people, factors, factors.T.astype(np.float64) @ factors, 3)
            objective.solve(columns, factors, people, people.T.astype(np.float64) @ people, 3)
        table = factors.astype(np.float64)
        gram = table.T @ table

        def score(histories: Histories) -> Floats:
            solved = np.zeros((histories.counts.shape[0], rank))
            objective.solve(entries(histories.counts), solved, table, gram, EXACT_STEPS)
            return (solved @ table.T).astype(np.float32)

        return score

    return learn


def for_everyone(score: Score, items: Items) -> Score:
    """As `score`, and by recent users for those without a history: no shop would show newcomers the first ids.

    Left to their zeros they made iALS look a sixth worse than it is for all users of a real shop.
    """
    recent = items.users[:, EVER - 1].astype(np.float32)

    def scored(histories: Histories) -> Floats:
        scores = score(histories)
        scores[np.diff(histories.counts.indptr) == 0] = recent
        return scores

    return scored


def trending(scores: Floats, trend: Floats) -> Floats:
    """Scores times the items' trend; those below 0 stay as they are."""
    return np.where(scores > 0, scores * trend, scores)


def best(scores: Floats, k: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Columns of each row's k largest scores above minus infinity, best first, ties by column, then -1; and how many
    there are."""
    columns, counts = np.full((len(scores), k), -1, np.int32), np.zeros(len(scores), np.int32)
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
