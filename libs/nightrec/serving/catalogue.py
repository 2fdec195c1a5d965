"""The item side of the candidates stage as arrays: what is sent once to every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from nightrec.config import RECENT_DAYS
from nightrec.serving.affinities import Traits
from nightrec.serving.item_facts import item_facts, weekday_logs
from nightrec.serving.neighbour_users import References
from nightrec.serving.vectors import Vectors, index_bytes
from nightrec.tables import WINDOWS

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

# Recent users by which everybody's most popular item leads among newcomers, others in proportion: few are noisy.
_PRIOR = 20.0
# What is assumed of an item to which nobody came back: so many gaps of so many days.
_GAP, _GAPS = 30.0, 3.0


def matrix(column: pa.ListArray, width: int | None = None) -> tuple[npt.NDArray[np.float32], Bools]:
    """Rows of a column of equally long vectors, and which rows have one; the others are zero.

    `width` is the length to expect; where it is 0 nobody can use the vectors and none is kept.
    """
    has = column.is_valid().to_numpy(zero_copy_only=False).copy()
    values = column.flatten().to_numpy(zero_copy_only=False)
    if width is None:
        width = len(values) // int(has.sum()) if has.any() else 0
    if not width:
        return np.zeros((len(column), 0), np.float32), np.zeros(len(column), np.bool_)
    rows = np.zeros((len(column), width), np.float32)
    rows[has] = values.reshape(-1, width)
    return rows, has


@dataclass(frozen=True)
class Orders:
    """Columns in one order or several, best first, and what to record as their scores: order o is offsets[o] on."""

    offsets: Ints
    columns: Ints
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Catalogue:
    """N items in the order of their ids, A of them available; `columns` and `column` lead from one to the other."""

    item_id: pa.StringArray  # N, in byte order
    columns: Ints  # A, item number of each column
    factors: Vectors  # N x D
    rising: Vectors  # N x D, factors times the item's trend
    vectors: Vectors  # N x E
    neighbours: Mapping[str, Any]  # per source N x A, sparse rows of similarities
    references: References
    segments: pa.StringArray  # S
    segment_counts: Any  # S x A, sparse rows of shrunk user counts above 0
    popularity: Ints  # A x 2: recent users, users ever
    windows: Ints  # A x tables.WINDOWS: users of each
    week: int  # one of these: seven days, or what is as short in a log that moves faster or slower
    month: int  # likewise: 28 days
    newcomers: Ints  # A, recent newcomers who took it up on their first day
    age: Ints  # A, days since the first event, 0 for none
    idle: Ints  # A, days since the last event; one day more than any other for none
    repeat_users: Ints  # A, users with events on more than one day
    gap: Floats  # A, days between them, shrunk towards a month where they are few
    weekday_days: Ints  # A x 2: pairs of a user and a day, on the weekday of reading and on all
    is_cold: Bools  # A, at most candidates.new_item_events events
    traits: Traits  # of all N items
    categories: Any  # A x C, sparse rows of ones
    category: pa.StringArray  # C
    new: Ints  # P, columns of the new items that lists draw among
    editorial: Ints  # A, place in the hand-made list from 0, -1 for none
    shared: Any = None  # N x A, sparse: above 0 where as many users have both as lists for nobody in particular rest on

    @classmethod
    def of(
        cls, rows: pa.Table, neighbours: Mapping[str, pa.Table], segments: pa.Table, editorial: Sequence[str],
        references: pa.Table, nearest: int, recent_days: int = RECENT_DAYS,
    ) -> Catalogue:  # fmt: skip
        """From items in id order (the columns of `candidates.item_rows`, `newcomer_count`, `is_new` and `is_cold`), per
        source its neighbours (`item_idx`, `neighbour_idx`, `similarity`), segments (`segment`, `item_idx`, `users`),
        and reference users (`user_id`, `basket`), of whom the `nearest` speak for a user. Trends follow from
        `recent_days` (`lately`).

        Ids of the editorial list that are not among the items, or not available, are passed over.
        """
        rows = rows.combine_chunks()
        item_id = rows["item_id"].combine_chunks()
        columns = np.flatnonzero(rows["is_available"].to_numpy())
        column = _column(len(item_id), columns)
        there = rows.take(pa.array(columns))
        popularity = np.column_stack([there[name].to_numpy() for name in ("recent_user_count", "user_count")])
        windows = there["window_user_counts"].combine_chunks().flatten().to_numpy().reshape(-1, len(WINDOWS))
        age, idle = (pc.fill_null(there[name], -1).to_numpy() for name in ("age", "idle"))
        repeats = there["repeat_user_count"].to_numpy()
        factors, has_factors = matrix(rows["factors"].combine_chunks())
        vectors, has_vector = matrix(rows["vector"].combine_chunks())
        trends = np.zeros((len(item_id), 1), np.float32)
        week, month = lately(recent_days)
        trends[columns, 0] = trend(windows, popularity[:, 1], month)
        category, categories = _categories(there["categories"].combine_chunks())
        picked = pc.index_in(there["item_id"], value_set=pa.array(list(dict.fromkeys(editorial)), pa.string()))
        names = pc.unique(segments["segment"]).cast(pa.string()).sort()
        return cls(
            item_id=item_id,
            columns=columns,
            factors=Vectors(has_factors, factors),
            rising=Vectors(has_factors, factors * trends),
            vectors=Vectors(has_vector, vectors),
            neighbours={
                source: _sparse(
                    table["item_idx"].to_numpy(),
                    column[table["neighbour_idx"].to_numpy()],
                    table["similarity"].to_numpy(),
                    (len(item_id), len(columns)),
                )
                for source, table in neighbours.items()
            },
            references=References.of(references, column, len(columns), nearest),
            segments=names,
            segment_counts=_sparse(
                pc.index_in(segments["segment"], value_set=names).to_numpy(),
                column[segments["item_idx"].to_numpy()],
                segments["users"].to_numpy(),
                (len(names), len(columns)),
            ),
            popularity=popularity,
            windows=windows,
            week=week,
            month=month,
            newcomers=there["newcomer_count"].to_numpy(),
            age=np.maximum(age, 0),
            idle=np.where(idle < 0, idle.max(initial=0) + 1, idle),
            repeat_users=repeats,
            gap=typical_gap(there["repeat_gap_days"].to_numpy(zero_copy_only=False), repeats),
            weekday_days=np.column_stack([there[name].to_numpy() for name in ("weekday_days", "all_days")]),
            is_cold=there["is_cold"].to_numpy(),
            traits=Traits.of(rows["values"].combine_chunks(), rows["price"].to_numpy(zero_copy_only=False)),
            categories=categories,
            category=category,
            new=np.flatnonzero(there["is_new"].to_numpy()),
            editorial=pc.fill_null(picked, -1).to_numpy(zero_copy_only=False),
        )

    @property
    def width(self) -> int:
        """A."""
        return len(self.columns)

    @cached_property
    def column(self) -> Ints:
        """N, column of each item, -1 where it is not available."""
        return _column(len(self.item_id), self.columns)

    def sharing(self, pairs: pa.Table | None) -> Catalogue:
        """With `shared` of these pairs (`item_idx`, `neighbour_idx`, `similarity`)."""
        if pairs is None:
            return self
        numbers = pairs["item_idx"].to_numpy(), self.column[pairs["neighbour_idx"].to_numpy()]
        shape = (len(self.item_id), self.width)
        return replace(self, shared=_sparse(*numbers, pairs["similarity"].to_numpy(), shape))

    @property
    def worker_bytes(self) -> int:
        """What item vectors take of a worker that holds them whole: themselves, and an index for each way of use."""
        items, wide, text = len(self.item_id), self.factors.width, self.vectors.width
        return 4 * items * (2 * wide + text) + self.width * (3 * index_bytes(wide) + index_bytes(text))

    @cached_property
    def trend(self) -> Floats:
        """A, see `trend`."""
        return trend(self.windows, self.popularity[:, 1], self.month)

    @cached_property
    def week_trend(self) -> Floats:
        """A, the same of one week."""
        return trend(self.windows, self.popularity[:, 1], self.week)

    @cached_property
    def facts(self) -> npt.NDArray[np.float64]:
        """A x item_facts.FACTS."""
        return item_facts(self)

    @cached_property
    def weekday_log(self) -> npt.NDArray[np.float64]:
        """A, see `item_facts.weekday_logs`."""
        return weekday_logs(self)

    @cached_property
    def by_week(self) -> Orders:
        """By users of the last week (`lately`), then as `by_popularity`; items without any are left out."""
        week = self.windows[:, WINDOWS.index(self.week)]
        order = np.lexsort((np.arange(self.width), -self.popularity[:, 1], -self.popularity[:, 0], -week))
        order = order[week[order] > 0]
        return Orders(np.array([0, len(order)]), order, week[order].astype(np.float32))

    @cached_property
    def by_popularity(self) -> Orders:
        """By recent users, then users ever, then id: even items that nobody has touched have their place."""
        order = np.lexsort((np.arange(self.width), -self.popularity[:, 1], -self.popularity[:, 0]))
        return Orders(np.array([0, len(order)]), order, self.popularity[order, 0].astype(np.float32))

    @cached_property
    def by_newcomers(self) -> Orders:
        """By recent newcomers who took the item up on their first day, shrunk towards recent popularity, then as in
        `by_popularity`; nothing where there were no newcomers.

        What people begin with is not what regulars take: NDCG@10 of users without events .528 where popularity has .517
        (301 of MovieLens) and .107 where it has .096 (391 of a shop).
        """
        if not self.newcomers.any():
            return Orders(np.zeros(2, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        recent, ever = self.popularity.T
        scores = (self.newcomers + _PRIOR * recent / max(recent.max(), 1)).astype(np.float32)
        order = np.lexsort((np.arange(self.width), -ever, -recent, -scores))
        order = order[scores[order] > 0]
        return Orders(np.array([0, len(order)]), order, scores[order])

    @cached_property
    def by_hand(self) -> Orders:
        """The editorial list."""
        order = np.argsort(self.editorial, kind="stable")[np.count_nonzero(self.editorial < 0) :]
        return Orders(np.array([0, len(order)]), order, (1.0 / (1.0 + self.editorial[order])).astype(np.float32))

    @cached_property
    def by_segment(self) -> Orders:
        """Per segment, by users of the item there, then id."""
        table = self.segment_counts.tocoo()
        scores = table.data.astype(np.float32)
        order = np.lexsort((table.col, -scores, table.row))
        order = order[scores[order] > 0]
        counts = np.bincount(table.row[order], minlength=len(self.segments))
        return Orders(np.concatenate([[0], np.cumsum(counts)]), table.col[order].astype(np.int64), scores[order])


def lately(recent_days: int) -> tuple[int, int]:
    """Two of WINDOWS: that nearest to a quarter of `recent_days`, and to these; ties to the shorter."""

    def nearest(wanted: float) -> int:
        return min(WINDOWS, key=lambda days: (abs(days - wanted), days))

    return nearest(recent_days / 4), nearest(recent_days)


def trend(windows: Ints, ever: Ints, days: int = 28) -> Floats:
    """Per item: users of the last days over what an item of that size has gathered, (recent + 1) / sqrt(ever + 1)."""
    found: Floats = (windows[:, WINDOWS.index(days)] + 1) / np.sqrt(ever + 1.0)
    return found


def typical_gap(gap: Floats, repeat_users: Ints) -> Floats:
    """Days between a user's events with an item, NaN where nobody came back: shrunk towards a month where few did."""
    found: Floats = (np.nan_to_num(gap) * repeat_users + _GAP * _GAPS) / (repeat_users + _GAPS)
    return found


def _categories(column: pa.ListArray) -> tuple[pa.StringArray, Any]:
    """All categories in order, and which of them each item has."""
    category = pc.unique(column.flatten()).cast(pa.string()).sort()
    offsets = np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())])
    entries = pc.index_in(column.flatten(), value_set=category).to_numpy()
    return category, sparse.csr_matrix((np.ones(len(entries)), entries, offsets), (len(column), len(category)))


def _column(items: int, columns: Ints) -> Ints:
    column = np.full(items, -1)
    column[columns] = np.arange(len(columns))
    return column


def _sparse(rows: Ints, columns: Ints, values: Floats, shape: tuple[int, int]) -> Any:
    """A sparse matrix of the entries whose item is available."""
    there = columns >= 0
    return sparse.csr_matrix((values[there].astype(np.float64), (rows[there], columns[there])), shape=shape)
