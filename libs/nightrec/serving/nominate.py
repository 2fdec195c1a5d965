"""Nominate candidates for a batch of lists: what each source nominates, and the union of it as rows.

One way serves every kind of list. A list is what is known of it: a factor vector or none, a text vector or none,
recent items, a segment or none, and the items it must not hold. What must not be shown is masked before each source's
cut, so a source that nominates n items nominates n that may be shown.

Letters: R lists of a batch, N items known, A of them available (columns), D factors, E embedding width, K of a source.
Items are numbered in the order of their ids, so the smaller number is the smaller id, and ties go to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightrec.features import FEATURES
from nightrec.serving.catalogue import Catalogue, matrix
from nightrec.serving.features import features
from nightrec.serving.sources import NOMINATE, RISING, Best
from nightrec.stopwatch import Clock
from nightrec.tables import SOURCES

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

# The rows of a block of lists may take about this much memory per worker, over all temporary arrays.
_BLOCK_BYTES = 64 * 2**20
_BYTES_PER_ROW = 1600  # keys and their sort, score and rank of each source, strings, features twice


def _numbers(column: pa.Array) -> Ints:
    """A column of whole numbers; -1 for null."""
    numbers: Ints = pc.fill_null(column, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _offsets(column: pa.ListArray) -> Ints:
    """Where the values of each list begin among all that are flattened, and where the last ends."""
    lengths = pc.fill_null(column.value_lengths(), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True)
class Ragged:
    """Item numbers of each list, list after list: those of list r are values[offsets[r]:offsets[r + 1]]."""

    offsets: Ints
    values: Ints

    @classmethod
    def of(cls, column: pa.ListArray, known: pa.Array | None = None) -> Ragged:
        """From a list column: of item numbers, or of ids to look up in `known`. Nulls and unknown ids are left out."""
        values = column.flatten() if known is None else pc.index_in(column.flatten(), value_set=known)
        lengths = pc.fill_null(column.value_lengths(), 0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(lengths)), lengths)[values.is_valid().to_numpy(zero_copy_only=False)]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(lengths)))])
        return cls(offsets.astype(np.int64), values.drop_null().to_numpy().astype(np.int64))

    def take(self, lists: Ints) -> Ragged:
        """Those of some lists, in that order."""
        lengths = np.diff(self.offsets)[lists]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(self.offsets[lists] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(offsets, self.values[at])

    def part(self, block: slice) -> Ragged:
        """Those of the lists block.start to block.stop, views of these."""
        offsets = self.offsets[block.start : block.stop + 1]
        return Ragged(offsets - offsets[0], self.values[self.entries(block)])

    def entries(self, block: slice) -> slice:
        """Where the values of the lists block.start to block.stop lie."""
        return slice(self.offsets[block.start], self.offsets[block.stop])

    def and_also(self, other: Ragged) -> Ragged:
        """Those of `other` behind these, list by list."""
        order = np.argsort(np.concatenate([self.rows, other.rows]), kind="stable")
        return Ragged(self.offsets + other.offsets, np.concatenate([self.values, other.values])[order])

    @cached_property
    def rows(self) -> Ints:
        """The list of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Lists:
    """A batch of R lists. Rows without a vector are zero and not in `has_`.

    `own` are the latest items of a user, newest first, by item number; of each the days with events, the days since
    the last and those from the first to the last. `recent` are the first of them; of an item, itself. `alike` are the
    reference users most like the user by them, and `likeness` how much.
    """

    als: Floats  # R x D
    has_als: Bools
    text: Floats  # R x E
    has_text: Bools
    seed: Ints  # R, for what chance decides
    is_newcomer: Bools  # users without events, and everyone who has no list
    is_item: Bools  # similar items: factors are compared by cosine, as lengths of item factors say popularity
    recent: Ragged
    segment: Ints  # R, row of the catalogue's segments, -1 for none
    masked: Ragged
    own: Ragged
    own_days: Ints
    own_age: Ints
    own_span: Ints
    alike: Ragged
    likeness: npt.NDArray[np.float64]
    event_count: Ints  # R
    item_count: Ints  # R
    days_since_last: Ints  # R, -1 for none
    weekday_share: npt.NDArray[np.float64]  # R, of the user's days with events, on the weekday of reading
    category: Ragged  # of the user's events, by number in the catalogue, -1 for one that no item has
    category_share: npt.NDArray[np.float64]

    @classmethod
    def of(cls, batch: pa.RecordBatch, items: Catalogue, clock: Clock = nullcontext) -> Lists:
        """Lists of an Arrow batch of columns `candidates.LISTS`; those of kind item take the item's vectors."""
        is_user, is_item, is_everyone = (
            pc.equal(batch.column("list_kind"), kind).to_numpy(zero_copy_only=False)
            for kind in ("user", "item", "everyone")
        )
        event_count = _numbers(batch.column("event_count"))
        als, has_als = matrix(batch.column("als_vector"), items.factors.width)
        text, has_text = matrix(batch.column("text_vector"), items.vectors.width)
        itself = _numbers(pc.index_in(batch.column("list_key"), value_set=items.item_id))
        rows = np.flatnonzero(is_item & (itself >= 0))
        als[rows], has_als[rows] = items.factors.rows[itself[rows]], items.factors.has[itself[rows]]
        text[rows], has_text[rows] = items.vectors.rows[itself[rows]], items.vectors.has[itself[rows]]
        own = Ragged.of(batch.column("own"))
        user = pc.index_in(batch.column("list_key"), value_set=items.references.user_id)
        with clock("neighbour_users"):
            who, alike, likeness = items.references.alike(own.offsets, own.values, _numbers(user))
        alone = Ragged(np.concatenate([[0], np.cumsum(is_item & (itself >= 0))]), itself[rows])
        return cls(
            als=als,
            has_als=has_als,
            text=text,
            has_text=has_text,
            seed=_numbers(batch.column("seed")),
            is_newcomer=is_user & (event_count <= 0) | is_everyone,
            is_item=is_item,
            recent=Ragged.of(batch.column("recent")).and_also(alone),
            segment=_numbers(pc.index_in(batch.column("segment"), value_set=items.segments)),
            masked=Ragged.of(batch.column("masked")).and_also(Ragged.of(batch.column("blocked_items"), items.item_id)),
            own=own,
            alike=Ragged(who, alike),
            likeness=likeness,
            **{name: batch.column(name).flatten().to_numpy() for name in ("own_days", "own_age", "own_span")},
            **{name: _numbers(batch.column(name)) for name in ("event_count", "item_count", "days_since_last")},
            weekday_share=pc.fill_null(batch.column("weekday_share"), 0.0).to_numpy(zero_copy_only=False),
            category=Ragged(
                _offsets(batch.column("categories")),
                _numbers(pc.index_in(batch.column("categories").flatten(), value_set=items.category)),
            ),
            category_share=batch.column("category_shares").flatten().to_numpy(),
        )

    def part(self, block: slice) -> Lists:
        """The lists block.start to block.stop, views of these: looking for users alike once more would take longer."""
        own, alike, category = (lists.entries(block) for lists in (self.own, self.alike, self.category))
        beside = {"own_days": own, "own_age": own, "own_span": own, "likeness": alike, "category_share": category}
        parts: dict[str, Any] = {
            name: value.part(block) if isinstance(value, Ragged) else value[beside.get(name, block)]
            for name, value in vars(self).items()
        }
        return Lists(**parts)

    def __len__(self) -> int:
        return len(self.segment)


def nominate(
    lists: Lists, items: Catalogue, counts: Mapping[str, int], *, is_rising: bool, clock: Clock = nullcontext
) -> dict[str, list[Best]]:
    """What each source nominates for a batch of lists, plainly and, with `is_rising`, also times the items' trend.

    Sources with count 0 are left out.
    """
    masked = Ragged(lists.masked.offsets, items.column[lists.masked.values])
    wanted = {source: min(counts[source], items.width) for source in SOURCES if counts[source]}
    found: dict[str, list[Best]] = {}
    for source, count in wanted.items():
        with clock(source):
            found[source] = [NOMINATE[source](lists, items, masked, count)]
            if is_rising and source in RISING:
                found[source].append(RISING[source](lists, items, masked, count))
    return found


@dataclass(frozen=True)
class Union:
    """The cells that any source nominated for a block of lists, in order of list, then item, n of them.

    `ranks` per source of SOURCES: 1-based, 0 for cells it did not nominate; `scores` where it did.
    """

    rows: Ints
    columns: Ints
    ranks: dict[str, npt.NDArray[np.int32]]
    scores: dict[str, Floats]
    source: Ints  # of SOURCES, the one that ranked the item highest, ties in ladder order
    because: Ints  # item number, of the source that ranked it highest among those that can say; -1 where none can

    @classmethod
    def of(cls, nominated: Mapping[str, list[Best]], block: slice, width: int) -> Union:
        """Of a block of the lists; `width` is A."""
        cells = {source: [_cells(form, block, width) for form in forms] for source, forms in nominated.items()}
        # Sorting beats numpy's hashing unique five times here.
        both = np.sort(np.concatenate([*(keys for forms in cells.values() for keys, _, _ in forms), np.empty(0, int)]))
        both = both[np.diff(both, prepend=-1) > 0]
        top = np.full(len(both), np.iinfo(np.int32).max)
        said = top.copy()
        winner, because = np.zeros(len(both), np.int64), np.full(len(both), -1)
        ranks, scores = {}, {}
        for number, source in enumerate(SOURCES):
            score, rank = np.zeros(len(both), np.float32), np.zeros(len(both), np.int32)
            reason = np.full(len(both), -1)
            for form, (keys, rows, places) in zip(nominated.get(source, ()), cells.get(source, ()), strict=True):
                at = np.searchsorted(both, keys)
                first = (rank[at] == 0) | (places + 1 < rank[at])
                here, cell = at[first], (rows[first], places[first])
                rank[here] = cell[1] + 1
                score[here], reason[here] = form.scores[block][cell], form.because[block][cell]
            better = (rank > 0) & (rank < top)
            top[better], winner[better] = rank[better], number
            speaks = (reason >= 0) & (rank < said)
            said[speaks], because[speaks] = rank[speaks], reason[speaks]
            ranks[source], scores[source] = rank, score
        return cls(both // max(width, 1), both % max(width, 1), ranks, scores, winner, because)


def _cells(found: Best, block: slice, width: int) -> tuple[Ints, Ints, Ints]:
    """List and place of each nomination of a block, and a number for its cell."""
    rows, places = np.nonzero(found.columns[block] >= 0)
    return rows * width + found.columns[block][rows, places], rows, places


def candidates(
    batch: pa.RecordBatch, items: Catalogue, counts: Mapping[str, int], *, of_users: bool, clock: Clock = nullcontext
) -> Iterator[pa.RecordBatch]:
    """Candidates of the lists of an Arrow batch, block by block, in order of list, then item id.

    Lists `of_users` are nominated for in both forms, and those whose user has a history get features. `clock` is told
    what each source takes, and beside them the union and its features.
    """
    lists = Lists.of(batch, items, clock)
    nominated = nominate(lists, items, counts, is_rising=of_users, clock=clock)
    step = max(1, _BLOCK_BYTES // (_BYTES_PER_ROW * max(sum(counts.values()), 1)))
    for start in range(0, len(lists), step):
        block = slice(start, min(start + step, len(lists)))
        with clock("union"):
            cells = Union.of(nominated, block, items.width)
        at = pa.array(cells.rows + start)
        named = {
            "list_kind": batch.column("list_kind").take(at),
            "list_key": batch.column("list_key").take(at),
            "item_id": items.item_id.take(pa.array(items.columns[cells.columns])),
        }
        for source in SOURCES:
            nobody = cells.ranks[source] == 0
            named[f"{source}_score"] = pa.array(cells.scores[source], mask=nobody)
            named[f"{source}_rank"] = pa.array(cells.ranks[source], mask=nobody)
        named["source"] = pa.array(SOURCES, pa.string()).take(pa.array(cells.source))
        named["because_item_id"] = items.item_id.take(pa.array(cells.because, mask=cells.because < 0))
        with clock("features"):
            named["features"] = _features(lists.part(block), items, cells, of_users=of_users)
        yield pa.RecordBatch.from_pydict(named)


def _features(lists: Lists, items: Catalogue, cells: Union, *, of_users: bool) -> pa.ListArray:
    """A row of features per cell; null where the user has no history, or it is no user's list."""
    known = (lists.event_count > 0)[cells.rows] if of_users else np.zeros(len(cells.rows), np.bool_)
    nominations = sum((cells.ranks[source] > 0).astype(np.int64) for source in SOURCES)
    assert isinstance(nominations, np.ndarray)
    found = features(lists, items, cells.rows[known], cells.columns[known], nominations[known])
    offsets = np.concatenate([[0], np.cumsum(known) * len(FEATURES)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(found.ravel()), mask=pa.array(~known))
