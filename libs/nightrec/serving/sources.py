"""What each candidate source thinks of every available item, for a block of lists.

A scorer returns scores (R x A, -inf where the source has nothing to say) and, where the source can name the item of
the list that speaks most for a candidate, a function that does so for nominated (rows, columns).
Products are taken in double and rounded once: in float their last bit depends on how many lists share a block, and
equal items would then stop being ties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nightrec.serving.catalogue import Catalogue

if TYPE_CHECKING:
    from nightrec.serving.nominate import Lists

Scores = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]
Explain = Callable[[Ints, Ints], Ints]
Scorer = Callable[["Lists", Catalogue], tuple[Scores, Explain | None]]

# Nominated pairs whose vectors are gathered at once, times embedding width: 2**22 doubles are 32 MiB.
_CELLS = 2**22


def als(lists: Lists, items: Catalogue) -> tuple[Scores, None]:
    """Factors of the list times factors of the item; for similar items the cosine of the two."""
    scores = lists.als.astype(np.float64) @ items.factor_columns.T
    if lists.is_item.any():
        lengths = np.outer(
            np.linalg.norm(lists.als[lists.is_item].astype(np.float64), axis=1),
            np.linalg.norm(items.factor_columns, axis=1),
        )
        scores[lists.is_item] = np.divide(scores[lists.is_item], lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return _where(scores, lists.has_als, items.has_factors[items.columns]), None


def cooccurrence(lists: Lists, items: Catalogue) -> tuple[Scores, Explain]:
    """Sum over the list's recent items of their similarity to the candidate, discounted by 1 / log2(place + 1)."""
    recent, table = lists.recent, items.neighbours
    lengths = np.diff(table.indptr)[recent.values]
    entry = np.repeat(np.arange(len(lengths)), lengths)  # which recent item each neighbour comes from
    first = np.cumsum(lengths) - lengths
    at = table.indptr[recent.values][entry] + np.arange(len(entry)) - first[entry]
    cell = recent.rows[entry] * items.width + table.indices[at]
    share = table.data[at] / np.log2(recent.places[entry] + 2.0)
    total = np.bincount(cell, weights=share, minlength=len(lists) * items.width).reshape(len(lists), items.width)

    def explain(rows: Ints, columns: Ints) -> Ints:
        wanted = np.zeros(total.size, np.bool_)
        wanted[rows * items.width + columns] = True
        kept = np.flatnonzero(wanted[cell])
        # The largest share is written last and stays; of equal ones the newest item's.
        order = kept[np.lexsort((-recent.places[entry[kept]], share[kept]))]
        speaker = np.full(total.size, -1)
        speaker[cell[order]] = recent.values[entry[order]]
        said: Ints = speaker[rows * items.width + columns]
        return said

    return _above_zero(total.astype(np.float64, copy=False)), explain


def text(lists: Lists, items: Catalogue) -> tuple[Scores, Explain]:
    """Cosine of the list's text vector and the item's."""
    scores = _where(
        lists.text.astype(np.float64) @ items.vector_columns.T, lists.has_text, items.has_vector[items.columns]
    )
    return scores, lambda rows, columns: _nearest(lists, items, rows, columns)


def _nearest(lists: Lists, items: Catalogue, rows: Ints, columns: Ints) -> Ints:
    """The recent item, other than itself, whose text is nearest to each nominated item's; the newest of equal ones."""
    recent, width = lists.recent, max(items.vectors.shape[1], 1)
    lengths = np.diff(recent.offsets)
    speaker = np.full(len(rows), -1)
    counts = np.bincount(rows, minlength=len(lists))
    starts = np.cumsum(counts) - counts
    step = max(1, _CELLS // (width * int(max(counts.max(initial=1), lengths.max(initial=1)))))
    for start in range(0, len(lists), step):
        block = np.arange(start, min(start + step, len(lists)))
        entry = np.arange(lengths[block].max(initial=0))
        place = np.arange(counts[block].max(initial=0))
        if not len(entry) or not len(place):
            continue
        real, pair = entry < lengths[block, None], place < counts[block, None]
        own = recent.values[np.where(real, recent.offsets[block, None] + entry, 0)]  # lists x entries
        found = np.where(pair, starts[block, None] + place, 0)  # lists x nominated
        item = items.columns[columns[found]]
        near = np.matmul(
            items.vectors[item].astype(np.float64), items.vectors[own].astype(np.float64).transpose(0, 2, 1)
        )
        speaks = (real & items.has_vector[own])[:, None, :] & (own[:, None, :] != item[:, :, None])
        near = np.where(speaks, near.astype(np.float32), -np.inf)
        nearest = np.take_along_axis(own, near.argmax(axis=2), axis=1)
        speaker[found[pair]] = np.where(near.max(axis=2) > -np.inf, nearest, -1)[pair]
    return speaker


def segment(lists: Lists, items: Catalogue) -> tuple[Scores, None]:
    """Recent users of the item inside the list's segment, shrunk towards everybody's (`candidates.segments`)."""
    known = lists.segment >= 0
    total = np.zeros((len(lists), items.width))
    if known.any():
        total[known] = items.segment_counts[lists.segment[known]].toarray()
    return _above_zero(total), None


def popularity(lists: Lists, items: Catalogue) -> tuple[Scores, None]:
    """Minus the item's place by popularity: every available item has one, so no list stays empty that need not."""
    return _same(lists, -items.popular_place.astype(np.float32)), None


def editorial(lists: Lists, items: Catalogue) -> tuple[Scores, None]:
    """Minus the item's place in the hand-made list."""
    return _same(lists, np.where(items.editorial >= 0, -items.editorial, -np.inf).astype(np.float32)), None


SCORERS: dict[str, Scorer] = {
    "als": als,
    "cooccurrence": cooccurrence,
    "text": text,
    "segment": segment,
    "popularity": popularity,
    "editorial": editorial,
}


def _where(scores: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> Scores:
    rounded = scores.astype(np.float32)
    rounded[~rows] = -np.inf
    rounded[:, ~columns] = -np.inf
    return rounded


def _above_zero(scores: npt.NDArray[np.float64]) -> Scores:
    rounded = scores.astype(np.float32)
    rounded[rounded <= 0] = -np.inf
    return rounded


def _same(lists: Lists, scores: Scores) -> Scores:
    return np.repeat(scores[None, :], len(lists), axis=0)
