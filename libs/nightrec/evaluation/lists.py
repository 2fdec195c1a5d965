"""Every method's list of every judged user, and its figures: one pass over the users, in blocks.

Letters: U users of a block, N items on offer as of the cut, M methods, K list length.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame

from nightrec.evaluation import baselines
from nightrec.evaluation.baselines import Histories, Items, Score
from nightrec.metrics import catalogue, ranking

Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]

OURS = "nightrec"
# Lists are this long where a method can make them so: for recall_100, and for items that hardly any list has within K.
DEEP = 100
PER_METHOD = (*ranking.FIGURES, "recall_100", "novelty", "diversity")
USER_SLICES = {
    "users without events": (0, 0), "users of 1 event": (1, 1), "users of 2 to 5 events": (2, 5),
    "users of 6 events and more": (6, np.inf),
}  # fmt: skip
ITEM_SLICES = ("items without events", "items of 1 event", "items of 2 to 5 events", "head items", "tail items")
# Users scored at once: their scores of 20,000 items take 20 MB, their likeness to 50,000 references 50 MB.
_USERS = 256
_JUDGED = "user_id string, figures array<double>, lists array<array<int>>"


@dataclass(frozen=True)
class Method:
    """A baseline of a family with one of its settings, and whether its scores are multiplied by the items' trend."""

    family: str
    setting: str
    is_trending: bool

    @property
    def name(self) -> str:
        """What people call it, whatever its setting."""
        return f"{self.family}, trend" if self.is_trending else self.family


@dataclass(frozen=True)
class Shelf:
    """What the figures need of the N items: `weight` of a hit for debiased figures, `share` of all users who acted on
    it (above 0), text `vectors` of length 1 (N x 0 where unknown), `members` of ITEM_SLICES (N x 5)."""

    weight: Doubles
    share: Doubles
    vectors: npt.NDArray[np.float32]
    members: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, items: Items, vectors: npt.NDArray[np.float32] | None = None) -> Shelf:
        """An item's weight is one over the root of its users and one more."""
        ever = items.users[:, baselines.EVER]
        share = (ever + 1) / (items.people + 1)
        none = np.zeros((len(ever), 0), np.float32)
        return cls(1 / np.sqrt(ever + 1), share, none if vectors is None else vectors, members(items.events))


def members(events: Doubles) -> npt.NDArray[np.bool_]:
    """N x ITEM_SLICES: by the events of each item. Head items are the most popular ones that took half of all events,
    ties by number, and all others are the tail."""
    order = np.argsort(-events, kind="stable")
    before = np.cumsum(events[order]) - events[order]
    is_head = np.zeros(len(events), np.bool_)
    is_head[order] = before < events.sum() / 2
    return np.column_stack([events == 0, events == 1, (events >= 2) & (events <= 5), is_head, ~is_head])


def item_figures(k: int) -> list[tuple[str, int]]:
    """What is told of items: of each slice the recall at k, and at DEEP, where also few new ones stand in lists."""
    return [(part, depth) for depth in dict.fromkeys((k, DEEP)) for part in ITEM_SLICES]


@dataclass(frozen=True)
class Judging:
    """One pass: `methods` with what their families learned, beside `ours` where the users have a column of that name
    (`everyone`'s list stands in where it is NULL)."""

    k: int
    shelf: Shelf
    trend: npt.NDArray[np.float32]
    methods: Sequence[Method]
    learned: Mapping[tuple[str, str], Score]
    everyone: Sequence[int] | None = None
    segments: Sequence[str] = field(default=())

    @property
    def names(self) -> list[str]:
        """The methods, ours first."""
        return [*([OURS] if self.everyone is not None else []), *(method.name for method in self.methods)]

    @property
    def slices(self) -> list[str]:
        """Of users, by events before the cut and by segment."""
        return [*USER_SLICES, *(f"segment {name}" for name in self.segments)]

    @property
    def columns(self) -> list[Hashable]:
        """What `figures` holds: method and figure, method and one of item_figures, method and user slice (NDCG)."""
        kinds = [*PER_METHOD, *item_figures(self.k), *self.slices]
        return [(name, kind) for name in self.names for kind in kinds]

    def judged(self, users: DataFrame) -> DataFrame:
        """One row per user of `users` (asof.users with _user, a hash of the id; ours and segment where judged):
        user_id, `figures` in the order of `columns`, `lists` of K items by number in the order of `names`.

        What no list may hold is left out of baselines' lists as it is of ours; ties go to the smaller number.
        """
        return users.mapInArrow(self._work, _JUDGED)

    def _work(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, _USERS):
                yield self._block(batch.slice(start, _USERS))

    def _block(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        history = Histories.of([batch], len(self.trend))
        starts = np.concatenate([[0], np.cumsum(batch["truth"].value_lengths().to_numpy())])
        wanted = batch["truth"].flatten().to_numpy()
        weights = np.append(self.shelf.weight, 1.0)[wanted]  # -1, not on offer: nobody's, the last
        inside = self._slices(batch)
        figures, lists = [], []
        for shown in self._lists(batch, history):
            found = ranking.figures(shown, starts, wanted, weights, self.k)[:, : len(ranking.FIGURES)]
            deep = ranking.figures(shown, starts, wanted, weights, DEEP)[:, [ranking.FIGURES.index("recall")]]
            top = shown[:, : self.k]
            more = catalogue.novelty_and_diversity(top, self.shelf.share, self.shelf.vectors)
            by_class = (
                ranking.recall_of(shown, starts, wanted, self.shelf.members, depth)
                for depth in dict.fromkeys((self.k, DEEP))
            )
            ndcg = np.where(inside, found[:, [0]], np.nan)
            figures.append(np.hstack([found, deep, more, *by_class, ndcg]))
            lists.append(top)
        return pa.RecordBatch.from_pydict({
            "user_id": batch["user_id"], "figures": _rows(np.hstack(figures)), "lists": _nested(np.stack(lists, 1)),
        })  # fmt: skip

    def _lists(self, batch: pa.RecordBatch, history: Histories) -> Iterator[Ints]:
        """U x DEEP (or K, if that is more) of each method; ours as long as they are."""
        if self.everyone is not None:
            ours = np.full((batch.num_rows, max(DEEP, self.k)), -1)
            ours[:, : len(self.everyone)] = self.everyone
            own = batch["ours"]
            ours[own.is_valid().to_numpy(zero_copy_only=False)] = -1
            lengths = own.value_lengths().fill_null(0).to_numpy()
            rows = np.repeat(np.arange(len(lengths)), lengths)
            places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            ours[rows, places] = own.flatten().to_numpy()
            yield ours
        hidden = batch["masked"]
        masked = np.repeat(np.arange(batch.num_rows), hidden.value_lengths().to_numpy()), hidden.flatten().to_numpy()
        last: tuple[str, str] | None = None
        for method in self.methods:
            if (method.family, method.setting) != last:
                last = method.family, method.setting
                plain = self.learned[last](history)
            scores = baselines.trending(plain, self.trend) if method.is_trending else plain.copy()
            scores[masked] = -np.inf
            yield baselines.best(scores, max(DEEP, self.k))[0]

    def _slices(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """U x slices: who is in which."""
        events = batch["events"].to_numpy()
        by_events = [(events >= low) & (events <= high) for low, high in USER_SLICES.values()]
        names = np.array(batch["segment"].to_pylist() if self.segments else [], object)
        return np.column_stack([*by_events, *(names == segment for segment in self.segments)])


def _rows(values: Doubles) -> pa.ListArray:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def _nested(shown: Ints) -> pa.ListArray:
    """U x M x K as lists of lists, without the places below 0."""
    lengths = (shown >= 0).sum(2).ravel()
    inner = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(inner), pa.array(shown[shown >= 0], pa.int32()))
    outer = np.arange(len(shown) + 1, dtype=np.int32) * shown.shape[1]
    return pa.ListArray.from_arrays(pa.array(outer), lists)
