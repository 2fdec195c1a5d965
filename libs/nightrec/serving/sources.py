"""What each candidate source nominates for a block of lists: its best columns, masked before the cut.

A source never scores every pair: vectors meet items in `inner_product`, neighbours are added up for the items that
have any, and what is in one order for many lists is read from its beginning. Scores are taken in double in one order of
operations and rounded once to float32, so no bit depends on how many lists share a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nightrec.serving import new_items as drawing
from nightrec.serving import sources_kernel as kernel
from nightrec.serving.catalogue import Catalogue, Orders
from nightrec.serving.vectors import Vectors

if TYPE_CHECKING:
    from nightrec.serving.nominate import Lists, Ragged

Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]

# Days after which a habit counts half.
HALF_LIFE = 60.0


@dataclass(frozen=True)
class Best:
    """The best of each of R lists (all R x K, best first): column, -1 where fewer are left, score, and the item of the
    list that speaks most for it, -1 where the source cannot say.
    """

    columns: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    because: npt.NDArray[np.int32]

    @classmethod
    def none(cls, rows: int, count: int) -> Best:
        """Nothing yet."""
        shape = (rows, count)
        return cls(np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32))


# `masked` holds columns, -1 for an item that is none.
Source = Callable[["Lists", Catalogue, "Ragged", int], Best]


def als(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """Factors of the list times factors of the item; for similar items the cosine of the two."""
    return _by_factors(items.factors, lists, items, masked, count)


def als_rising(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """The same times the item's trend."""
    return _by_factors(items.rising, lists, items, masked, count)


def _by_factors(factors: Vectors, lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    best = Best.none(len(lists), count)
    for is_cosine in (False, True):
        rows = np.flatnonzero(lists.has_als & (lists.is_item == is_cosine))
        if len(rows):
            hidden = masked.take(rows)
            best.columns[rows], best.scores[rows] = factors.best(
                items.columns, lists.als[rows], hidden.offsets, hidden.values, count, is_cosine=is_cosine
            )
    return best


def text(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """Product of the list's text vector and the item's, both of norm 1: their cosine.

    The reason is the recent item, other than itself, whose text is nearest; the newest of equal ones.
    """
    best, vectors = Best.none(len(lists), count), items.vectors
    rows = np.flatnonzero(lists.has_text)
    if len(rows):
        hidden = masked.take(rows)
        best.columns[rows], best.scores[rows] = vectors.best(
            items.columns, lists.text[rows], hidden.offsets, hidden.values, count, is_cosine=False
        )
        kernel.nearest(
            lists.recent.offsets, lists.recent.values, vectors.rows, vectors.has, items.columns, best.columns,
            best.because,
        )  # fmt: skip
    return best


def recent_weights(recent: Ragged) -> Doubles:
    """1 / log2(place + 1) of each of a list's recent items, newest first: what was done lately says more."""
    place = np.arange(len(recent.values)) - recent.offsets[:-1][recent.rows]
    weights: Doubles = 1 / np.log2(place + 2.0)
    return weights


def neighbours(source: str, *, is_rising: bool = False) -> Source:
    """Sum over the list's recent items of their similarity to the candidate, weighted by place; times its trend.

    The reason is the recent item with the largest share in the sum; the newest of equal ones.
    """

    def nominate(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
        best, recent, table = Best.none(len(lists), count), lists.recent, items.neighbours[source]
        factor = items.trend if is_rising else np.ones(items.width)
        kernel.together(
            recent.offsets, recent.values, recent_weights(recent), table.indptr, table.indices, table.data, factor,
            masked.offsets, masked.values, items.width, best.columns, best.scores, best.because,
        )  # fmt: skip
        return best

    return nominate


def neighbour_users(*, is_rising: bool = False) -> Source:
    """The sum of the likenesses of the reference users most like the list's who have the item; times its trend."""

    def nominate(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
        best, taken = Best.none(len(lists), count), items.references.taken
        factor = items.trend if is_rising else np.ones(items.width)
        # Who speaks here are users: no reason to name.
        kernel.together(
            lists.alike.offsets, lists.alike.values, lists.likeness, taken.indptr, taken.indices, taken.data, factor,
            masked.offsets, masked.values, items.width, best.columns, best.scores, best.because.copy(),
        )  # fmt: skip
        return best

    return nominate


def habit_scores(lists: Lists) -> Doubles:
    """Of each of the lists' own items: days on which the user acted on it, halved every HALF_LIFE since the last."""
    scores: Doubles = lists.own_days * 0.5 ** (lists.own_age / HALF_LIFE)
    return scores


def habit(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """The user's own items, where they may come back: those not masked, by `habit_scores`."""
    best = Best.none(len(lists), count)
    kernel.best_own(
        lists.own.offsets, items.column[lists.own.values], habit_scores(lists), masked.offsets, masked.values,
        items.width, best.columns, best.scores,
    )  # fmt: skip
    return best


def segment(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """Recent users of the item inside the list's segment, shrunk towards everybody's (`candidates.segments`)."""
    return _in_order(items.by_segment, lists.segment, masked, count, items.width)


def newcomers(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """For users without events, and for everyone who has no list: what newcomers begin with (`by_newcomers`)."""
    return _in_order(items.by_newcomers, np.where(lists.is_newcomer, 0, -1), masked, count, items.width)


def popularity(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """By recent users, users ever, id; the score is recent users. Every available item has its place, so no list stays
    empty that need not.
    """
    return _in_order(items.by_popularity, np.zeros(len(lists), np.int64), masked, count, items.width)


def trending(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """By users of the last week, then as in `popularity`; items without any are left out."""
    return _in_order(items.by_week, np.zeros(len(lists), np.int64), masked, count, items.width)


def new_items(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """A draw among the night's new items (see that module); the score is the probability at that place."""
    best = Best.none(len(lists), count)
    drawing.draw(lists, items, masked, best)
    return best


def editorial(lists: Lists, items: Catalogue, masked: Ragged, count: int) -> Best:
    """In the order of the hand-made list; the score is 1 / place."""
    return _in_order(items.by_hand, np.zeros(len(lists), np.int64), masked, count, items.width)


def _in_order(orders: Orders, which: Ints, masked: Ragged, count: int, width: int) -> Best:
    """The first of the list's order that are not masked; `which` order, -1 for none."""
    best = Best.none(len(which), count)
    kernel.first_left(
        orders.offsets, orders.columns, orders.scores, which, masked.offsets, masked.values, width, best.columns,
        best.scores,
    )  # fmt: skip
    return best


NOMINATE: dict[str, Source] = {
    "als": als,
    "neighbour_users": neighbour_users(),
    **{source: neighbours(source) for source in ("cooccurrence", "bm25", "linear", "transitions")},
    "text": text,
    **{source: neighbours(source) for source in ("keywords", "attributes")},
    "habit": habit,
    "newcomers": newcomers,
    "segment": segment,
    "trending": trending,
    "popularity": popularity,
    "new_items": new_items,
    "editorial": editorial,
}
# Only for users with a history: where tastes move with the season these bring what the plain score ranks too late.
RISING: dict[str, Source] = {
    "als": als_rising,
    "neighbour_users": neighbour_users(is_rising=True),
    **{source: neighbours(source, is_rising=True) for source in ("cooccurrence", "linear", "transitions")},
}
