"""What the user's own items have in common with a candidate: categories, attributes, tags and price.

Own items are the user's latest, on offer or not; the candidate is among them where the user acted on it before.
Letters as in `features`; N items known, V values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from nightrec.serving import attributes
from nightrec.serving import features_kernel as kernel
from nightrec.serving.item_facts import percentiles

if TYPE_CHECKING:
    from nightrec.serving.catalogue import Catalogue
    from nightrec.serving.nominate import Lists

Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]

# Bands of as many items each.
BANDS = 10


@dataclass(frozen=True)
class Traits:
    """What the catalogue says of the N items, on offer or not."""

    attributes: Any  # N x V, sparse rows of ones; a price is none
    tags: Any  # N x V, sparse rows of ones
    price_place: Doubles  # N, percentile of the price among those of all items that have one; 0 without
    price_band: Ints  # N, tenth of these prices from 0, by how many are lower; -1 without

    @classmethod
    def of(cls, values: pa.ListArray, price: Doubles) -> Traits:
        """From `attributes.values` and `attributes.price` of each item, NaN for none."""
        names, held = attributes.named(values)
        kind = pc.list_element(pc.split_pattern(names, "\n", max_splits=1), 0)
        is_price = pc.match_substring_regex(kind, r"^attribute\s+price\s*$", ignore_case=True)
        is_attribute = pc.and_not(pc.starts_with(kind, "attribute "), is_price)
        has = np.isfinite(price)
        prices = price[has]
        place, band = np.zeros(len(price)), np.full(len(price), -1)
        place[has] = percentiles(prices)
        band[has] = np.searchsorted(np.sort(prices), prices) * BANDS // max(len(prices), 1)
        return cls(_shared(held, is_attribute), _shared(held, pc.equal(kind, "tags")), place, band)


def _shared(held: Any, wanted: pa.BooleanArray) -> Any:
    """Those values of `held` that are `wanted` and not of one item alone: they are all that two items can share."""
    holders = np.bincount(held.indices, minlength=held.shape[1])
    some = held[:, np.flatnonzero(wanted.to_numpy(zero_copy_only=False) & (holders > 1))]
    some.sum_duplicates()
    return sparse.csr_matrix((np.ones(some.nnz, np.int8), some.indices, some.indptr), some.shape)


def affinities(lists: Lists, items: Catalogue, offsets: Ints, rows: Ints, columns: Ints) -> Doubles:
    """(n, 6): the largest share of the user's events in any category of the candidate; of the own items that have any
    one attribute of the candidate, or any one tag; that lie in its tenth of prices; how far the percentile of its price
    is from the mean of theirs, and whether there are both prices. All 0 to 1, 0 where nothing is known.
    """
    number, own = items.columns[columns], lists.own
    found = np.zeros((6, len(columns)))
    table = items.categories
    kernel.largest_shared(
        lists.category.offsets, lists.category.values, lists.category_share, table.indptr, table.indices, offsets,
        columns, table.shape[1], found[0],
    )  # fmt: skip
    for place, table in enumerate((items.traits.attributes, items.traits.tags), 1):
        kernel.most_shared(
            own.offsets, own.values, table.indptr, table.indices, offsets, number, table.shape[1], found[place]
        )
    found[3:] = _prices(lists, items.traits, rows, number)
    return found.T


def _prices(lists: Lists, traits: Traits, rows: Ints, number: Ints) -> Doubles:
    """(3, n) for the items of these numbers."""
    own, band = lists.own.values, traits.price_band[number]
    has = traits.price_band[own] >= 0
    own, row = own[has], lists.own.rows[has]
    inside = np.bincount(row * BANDS + traits.price_band[own], minlength=len(lists) * BANDS).reshape(-1, BANDS)
    priced = inside.sum(axis=1)
    mean = np.bincount(row, traits.price_place[own], len(lists)) / np.maximum(priced, 1)
    share = inside[rows, band] / np.maximum(np.diff(lists.own.offsets), 1)[rows]
    is_known = (band >= 0) & (priced[rows] > 0)
    distance = np.abs(traits.price_place[number] - mean[rows])
    return np.where(is_known, [share, distance, np.ones(len(rows))], 0.0)
