"""The kernel that nominates candidates: for each source score a block of lists against every available item, mask, cut.

One kernel serves every kind of list. A list is what is known of it: a factor vector or none, a text vector or none,
recent items, a segment or none, and the items it must not hold. What must not be shown is masked before each source's
cut, so a source that nominates n items nominates n that may be shown.

Letters: R lists of a block, N items known, A of them available (a matrix's columns), D factors, E embedding width.
Items are numbered in the order of their ids, so the smaller number is the smaller id, and ties go to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightrec.serving.catalogue import Catalogue, matrix
from nightrec.serving.sources import SCORERS
from nightrec.tables import SOURCES

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

# A block of lists may take about this much memory per worker, over all its temporary arrays.
_BLOCK_BYTES = 64 * 2**20
_BYTES_PER_CELL = 24  # scores in double and float, the partitioned copy, three masks
_BYTES_PER_NEIGHBOUR = 48  # one neighbour of one recent item: list, column, share, and their sort


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

    def cut(self, start: int, stop: int) -> Ragged:
        """Those of the lists start .. stop-1."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(offsets - offsets[0], self.values[offsets[0] : offsets[-1]])

    @cached_property
    def rows(self) -> Ints:
        """The list of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def places(self) -> Ints:
        """The place of each value in its list, from 0."""
        return np.arange(len(self.values)) - self.offsets[self.rows]


@dataclass(frozen=True)
class Lists:
    """A block of R lists. Rows without a vector are zero and not in `has_`."""

    als: Floats  # R x D
    has_als: Bools
    text: Floats  # R x E
    has_text: Bools
    is_item: Bools  # similar items: factors are compared by cosine, as lengths of item factors say popularity
    recent: Ragged  # newest first
    segment: Ints  # R, row of the catalogue's segments, -1 for none
    masked: Ragged

    @classmethod
    def of(cls, batch: pa.RecordBatch, items: Catalogue) -> Lists:
        """Lists of an Arrow batch of columns `candidates.LISTS`; those of kind item take the item's vectors."""
        is_item = pc.equal(batch.column("list_kind"), "item").to_numpy(zero_copy_only=False)
        als, has_als = matrix(batch.column("als_vector"), items.factors.shape[1])
        text, has_text = matrix(batch.column("text_vector"), items.vectors.shape[1])
        own = pc.fill_null(pc.index_in(batch.column("list_key"), value_set=items.item_id), -1).to_numpy(
            zero_copy_only=False
        )
        rows = np.flatnonzero(is_item & (own >= 0))
        als[rows], has_als[rows] = items.factors[own[rows]], items.has_factors[own[rows]]
        text[rows], has_text[rows] = items.vectors[own[rows]], items.has_vector[own[rows]]
        segment = pc.fill_null(pc.index_in(batch.column("segment"), value_set=items.segments), -1)
        seen, blocked = Ragged.of(batch.column("masked")), Ragged.of(batch.column("blocked_items"), items.item_id)
        order = np.argsort(np.concatenate([seen.rows, blocked.rows]), kind="stable")
        return cls(
            als,
            has_als,
            text,
            has_text,
            is_item,
            Ragged.of(batch.column("recent_items"), items.item_id),
            segment.to_numpy(zero_copy_only=False).astype(np.int64),
            Ragged(seen.offsets + blocked.offsets, np.concatenate([seen.values, blocked.values])[order]),
        )

    def cut(self, start: int, stop: int) -> Lists:
        """The lists start .. stop-1."""
        rows = slice(start, stop)
        return Lists(
            self.als[rows],
            self.has_als[rows],
            self.text[rows],
            self.has_text[rows],
            self.is_item[rows],
            self.recent.cut(start, stop),
            self.segment[rows],
            self.masked.cut(start, stop),
        )

    def __len__(self) -> int:
        return len(self.segment)


@dataclass(frozen=True)
class Nominated:
    """What one source nominated: list, column, 1-based rank, score, and the reason item, -1 where it cannot say."""

    rows: Ints
    columns: Ints
    ranks: Ints
    scores: Floats
    because: Ints


def best(scores: npt.NDArray[np.float32], count: int) -> tuple[Ints, Ints, Ints]:
    """Rows, columns and 1-based ranks of the `count` highest scores above -inf of each row; ties to the smaller column.

    In order of row and rank. Linear in R x A: the count-th score by partition, then only the survivors are sorted.
    """
    keep = scores > -np.inf
    width = scores.shape[1]
    if count < width:
        cut = np.partition(scores, width - count, axis=1)[:, width - count, None]
        level = (scores == cut) & keep
        above = scores > cut
        spare = count - above.sum(axis=1)
        crowded = np.flatnonzero(level.sum(axis=1) > spare)
        level[crowded] &= np.cumsum(level[crowded], axis=1) <= spare[crowded, None]
        keep = above | level
    rows, columns = np.nonzero(keep)
    order = np.lexsort((columns, -scores[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    return rows, columns, np.arange(len(rows)) - np.searchsorted(rows, rows) + 1


def nominate(lists: Lists, items: Catalogue, counts: Mapping[str, int]) -> dict[str, Nominated]:
    """What each source nominates for a block of lists; sources with count 0 are left out."""
    columns = items.column[lists.masked.values]
    masked = (lists.masked.rows[columns >= 0], columns[columns >= 0])
    nominated = {}
    for source in SOURCES:
        if not counts[source]:
            continue
        scores, explain = SCORERS[source](lists, items)
        scores[masked] = -np.inf
        rows, cols, ranks = best(scores, counts[source])
        shown = items.shown.get(source)
        values = scores[rows, cols] if shown is None else shown[cols]
        because = explain(rows, cols) if explain else np.full(len(rows), -1)
        nominated[source] = Nominated(rows, cols, ranks, values, because)
    return nominated


def union(nominated: Mapping[str, Nominated], width: int) -> tuple[Ints, Ints, dict[str, pa.Array]]:
    """Rows and columns (A = `width`) of what any source nominated, in order, and the candidates' columns for them.

    `source` is the one that ranked the item highest, ties in ladder order. The reason item is that of the source that
    ranked it highest among those that can say.
    """
    keys = {source: found.rows * width + found.columns for source, found in nominated.items()}
    # Sorting beats numpy's hashing unique five times here.
    both = np.sort(np.concatenate([*keys.values(), np.empty(0, np.int64)]))
    both = both[np.diff(both, prepend=-1) > 0]
    top = np.full(len(both), np.iinfo(np.int32).max)
    said = top.copy()
    winner, because = np.zeros(len(both), np.int64), np.full(len(both), -1)
    columns: dict[str, pa.Array] = {}
    for number, source in enumerate(SOURCES):
        score, rank = np.zeros(len(both), np.float32), np.zeros(len(both), np.int32)
        reason = np.full(len(both), -1)
        if source in nominated:
            found, at = nominated[source], np.searchsorted(both, keys[source])
            score[at], rank[at], reason[at] = found.scores, found.ranks, found.because
        better = (rank > 0) & (rank < top)
        top[better], winner[better] = rank[better], number
        speaks = (reason >= 0) & (rank < said)
        said[speaks], because[speaks] = rank[speaks], reason[speaks]
        columns[f"{source}_score"] = pa.array(score, mask=rank == 0)
        columns[f"{source}_rank"] = pa.array(rank, mask=rank == 0)
    columns["source"] = pa.array(SOURCES, pa.string()).take(pa.array(winner))
    columns["because"] = pa.array(because, mask=because < 0)
    return both // max(width, 1), both % max(width, 1), columns


def candidates(batch: pa.RecordBatch, items: Catalogue, counts: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
    """Candidates of the lists of an Arrow batch, block by block, in order of list, then item id."""
    lists = Lists.of(batch, items)
    recent = int(np.diff(lists.recent.offsets).max(initial=0)) * items.neighbours_most
    per_list = _BYTES_PER_CELL * items.width + _BYTES_PER_NEIGHBOUR * recent
    step = max(1, _BLOCK_BYTES // max(per_list, 1))
    for start in range(0, len(lists), step):
        block = lists.cut(start, min(start + step, len(lists)))
        rows, columns, found = union(nominate(block, items, counts), items.width)
        at = pa.array(rows + start)
        named = {
            "list_kind": batch.column("list_kind").take(at),
            "list_key": batch.column("list_key").take(at),
            "item_id": items.item_id.take(pa.array(items.columns[columns])),
            **found,
            "because_item_id": items.item_id.take(found["because"]),
        }
        del named["because"]
        yield pa.RecordBatch.from_pydict(named)
