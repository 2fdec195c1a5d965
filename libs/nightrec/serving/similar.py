"""The tables of item-to-item similarity that the settings ask for, each by its own module."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame

from nightrec.config import Candidates
from nightrec.serving import attributes, keywords, linear, pairs
from nightrec.serving.bm25 import Bm25
from nightrec.serving.cooccurrence import Cooccurrence
from nightrec.serving.transitions import Transitions
from nightrec.serving.vouched import PAIRS
from nightrec.stopwatch import Clock

Ints = npt.NDArray[np.integer]


def neighbours(
    rows: pa.Table, histories: DataFrame, users: Ints, days: Ints, settings: Candidates, partitions: int,
    clock: Clock = nullcontext, least: int = 1,
) -> dict[str, pa.Table]:  # fmt: skip
    """Per source `item_idx`, `neighbour_idx`, `similarity`: the available items nearest to each.

    `rows` are those of `candidates.item_rows`. `users` counts who has an item in the basket and `days` those on which
    they acted on it, by item number. What is learned from pairs of items of the users is learned in one pass. From 2
    on, `least` also asks for the pairs of items that so many users have in their basket (vouched.PAIRS).
    """
    ways: dict[str, pairs.Weighing] = {
        "cooccurrence": Cooccurrence(users, settings.min_cooccurrence),
        "bm25": Bm25(days),
        "transitions": Transitions(users),
    }
    vouched: dict[str, pairs.Weighing] = {PAIRS: Cooccurrence(users, least)} if least > 1 else {}
    wanted = {source: way for source, way in ways.items() if getattr(settings, source)}
    available = rows["is_available"].to_numpy()
    found = pairs.neighbours(histories, wanted | vouched, available, settings.neighbours, partitions, clock)
    if settings.linear:
        with clock("linear"):
            found["linear"] = linear.neighbours(
                histories, users, most_items=settings.linear_items, penalty=settings.linear_penalty,
                neighbours=settings.neighbours,
            )  # fmt: skip
    if settings.keywords:
        with clock("keywords"):
            found["keywords"] = keywords.neighbours(rows, settings.neighbours)
    if settings.attributes:
        with clock("attributes"):
            found["attributes"] = attributes.neighbours(rows, settings.neighbours)
    return found
