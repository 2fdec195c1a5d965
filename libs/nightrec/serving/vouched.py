"""What lists for nobody in particular may rest on: only what so many distinct users did, that it shows no one's doing.

Counts of fewer users are taken as none, in the order of items too: an item that two users made popular stands where it
would stand without them. Two items are neighbours by what users did where as many have both in their basket. Texts,
keywords, attributes and picks by hand tell of no user.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nightrec.serving.catalogue import Catalogue, Orders
from nightrec.serving.vectors import Vectors

# The table of pairs of items that enough users share, among those of the sources.
PAIRS = "vouched"
# Sources that name an item because of what the users of another one did.
_BY_USERS = ("cooccurrence", "bm25", "linear", "transitions")


class Groups(Catalogue):
    """A catalogue as lists for nobody in particular see it."""

    @cached_property
    def by_popularity(self) -> Orders:
        """As of all, without the items that nobody has touched: their place would tell who else has been left out."""
        every = super().by_popularity
        order = every.columns[self.popularity[every.columns, 1] > 0]
        return Orders(np.array([0, len(order)]), order, self.popularity[order, 0].astype(np.float32))


def of_groups(items: Catalogue, users: npt.NDArray[np.integer], least: int) -> Catalogue:
    """The catalogue with what fewer than `least` users did left out; `users` are those of each of the N items ever.

    Segments are counted so already (see `candidates.segments`).
    """
    if least < 2:
        return items
    shared = items.shared.astype(bool)
    known = {field.name: getattr(items, field.name) for field in fields(Catalogue)}
    factors = items.factors
    masked = {
        "popularity": _kept(items.popularity, least),
        "windows": _kept(items.windows, least),
        "newcomers": _kept(items.newcomers, least),
        "factors": Vectors(factors.has & (users >= least), factors.held, factors.file, factors.step),
        "neighbours": {
            source: table.multiply(shared).tocsr() if source in _BY_USERS else table
            for source, table in items.neighbours.items()
        },
    }
    return Groups(**{**known, **masked})


def _kept(counts: npt.NDArray[np.integer], least: int) -> npt.NDArray[np.integer]:
    return np.where(counts >= least, counts, 0)
