"""Nominate candidates for a batch of lists: what each source nominates, and the union of it as rows.

One way serves every kind of list. A list is what is known of it: a factor vector or none, a text vector or none,
recent items, a segment or none, and the items it must not hold. What must not be shown is masked before each source's
cut, so a source that nominates n items nominates n that may be shown.

Letters: R lists of a batch, N items known, A of them available (columns), D factors, E embedding width, K of a source.
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
from nightrec.serving.sources import NOMINATE, Best
from nightrec.tables import SOURCES

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

# The rows of a block of lists may take about this much memory per worker, over all temporary arrays.
_BLOCK_BYTES = 64 * 2**20
_BYTES_PER_ROW = 200  # keys and their sort, score and rank of six sources, strings


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

    @cached_property
    def rows(self) -> Ints:
        """The list of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Lists:
    """A batch of R lists. Rows without a vector are zero and not in `has_`."""

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
        als, has_als = matrix(batch.column("als_vector"), items.factors.width)
        text, has_text = matrix(batch.column("text_vector"), items.vectors.width)
        own = pc.fill_null(pc.index_in(batch.column("list_key"), value_set=items.item_id), -1).to_numpy(
            zero_copy_only=False
        )
        rows = np.flatnonzero(is_item & (own >= 0))
        als[rows], has_als[rows] = items.factors.rows[own[rows]], items.factors.has[own[rows]]
        text[rows], has_text[rows] = items.vectors.rows[own[rows]], items.vectors.has[own[rows]]
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

    def __len__(self) -> int:
        return len(self.segment)


def nominate(lists: Lists, items: Catalogue, counts: Mapping[str, int]) -> dict[str, Best]:
    """What each source nominates for a batch of lists; sources with count 0 are left out."""
    masked = Ragged(lists.masked.offsets, items.column[lists.masked.values])
    wanted = {source: min(counts[source], items.width) for source in SOURCES if counts[source]}
    return {source: NOMINATE[source](lists, items, masked, count) for source, count in wanted.items()}


def union(nominated: Mapping[str, Best], block: slice, width: int) -> tuple[Ints, Ints, dict[str, pa.Array]]:
    """Rows and columns (A = `width`) of what any source nominated for a block of lists, in order, and the candidates'
    columns for them.

    `source` is the one that ranked the item highest, ties in ladder order. The reason item is that of the source that
    ranked it highest among those that can say.
    """
    cells = {source: np.nonzero(found.columns[block] >= 0) for source, found in nominated.items()}
    keys = {
        source: rows * width + nominated[source].columns[block][rows, places]
        for source, (rows, places) in cells.items()
    }
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
            score[at], reason[at] = found.scores[block][cells[source]], found.because[block][cells[source]]
            rank[at] = cells[source][1] + 1
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
    nominated = nominate(lists, items, counts)
    step = max(1, _BLOCK_BYTES // (_BYTES_PER_ROW * max(sum(counts.values()), 1)))
    for start in range(0, len(lists), step):
        rows, columns, found = union(nominated, slice(start, start + step), items.width)
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
