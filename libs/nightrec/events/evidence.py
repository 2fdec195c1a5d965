"""What a log shows of its people and items, as whole numbers: what settings that nobody has set are decided by.

Everything is of events with weight above 0 up to the last of them. See nightrec.adaptive for what follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

Ints = npt.NDArray[np.int64]

# Popularity is judged by so many items, the most popular ones, on so many days of the log's later half.
_TOP, _TRIES = 50, 4
# Of whom what they took up one after another is gathered: users, and items of each.
_USERS, _ITEMS = 5_000, 100


def span(events: DataFrame) -> tuple[date, date] | None:
    """Dates of the first and the last event; None where there is none."""
    found = events.where("weight > 0").agg(F.min("event_date"), F.max("event_date")).first()
    return (found[0], found[1]) if found and found[0] else None


def repeats(events: DataFrame, first: date, last: date) -> tuple[int, int]:
    """Events of the later half of the days from `first` to `last`; and those of an item on a later day than the user's
    first with it."""
    by_day = events.where("weight > 0").groupBy("user_id", "item_id", "event_date").agg(F.count("*").alias("_count"))
    is_later = F.date_diff("event_date", F.lit(first)) * 2 > (last - first).days
    later = F.coalesce(F.sum(F.when(is_later, F.col("_count"))), F.lit(0))
    begun = F.struct(F.min("event_date").alias("event_date"), F.min_by("_count", "event_date").alias("count"))
    pairs = by_day.groupBy("user_id", "item_id").agg(later.alias("_later"), begun.alias("_first"))
    first_is_later = F.date_diff("_first.event_date", F.lit(first)) * 2 > (last - first).days
    fresh = F.when(first_is_later, F.col("_first.count")).otherwise(0)
    found = pairs.agg(F.sum("_later"), F.sum(F.col("_later") - fresh)).first()
    return (int(found[0] or 0), int(found[1] or 0)) if found else (0, 0)


def ratings(events: DataFrame) -> tuple[int, int]:
    """Ratings, and those nearer to the smallest of all than to the largest."""
    rated = events.where("event_type = 'rating' AND value IS NOT NULL")
    middle = rated.agg(((F.min("value") + F.max("value")) / 2).alias("_middle"))
    is_low = F.col("value") < F.col("_middle")
    found = rated.crossJoin(F.broadcast(middle)).agg(F.count("*"), F.count_if(is_low)).first()
    return (int(found[0]), int(found[1])) if found else (0, 0)


def returning(events: DataFrame, last: date, days: Sequence[int]) -> list[int]:
    """For each of `days`: users with an event in so many days up to `last` and another before these."""
    users = events.where("weight > 0").groupBy("user_id").agg(
        F.date_diff(F.lit(last), F.min("event_date")).alias("_first"),
        F.date_diff(F.lit(last), F.max("event_date")).alias("_last"),
    )
    found = users.agg(*(F.count_if((F.col("_first") >= n) & (F.col("_last") < n)) for n in days)).first()
    return [int(count or 0) for count in found or [0] * len(days)]


def foretold(events: DataFrame, first: date, last: date, windows: Sequence[int], days: int) -> list[int]:
    """For each of `windows`: user-days (a user, an item and a date) of the 50 items most popular in so many days, in
    the `days` after, added up over up to four dates in the later half of the log, `days` apart; ties to what was more
    popular before, then to the item's id. What is gathered grows with items alone."""
    ends = [last - timedelta(days=days * n) for n in range(1, _TRIES + 1)]
    ends = [end for end in ends if (end - first).days * 2 >= (last - first).days]
    if not ends:
        return [0] * len(windows)
    age = [F.date_diff(F.lit(end), F.col("event_date")) for end in ends]
    counts = [
        [F.count_if((of_end < 0) & (of_end >= -days)), F.count_if(of_end >= 0)]
        + [F.count_if((of_end >= 0) & (of_end < window)) for window in windows]
        for of_end in age
    ]
    by_day = events.where("weight > 0").select("user_id", "item_id", "event_date").distinct()
    items = by_day.groupBy("item_id").agg(F.array(*(one for of_end in counts for one in of_end)).alias("counts"))
    table = items.toArrow().sort_by("item_id")
    shape = (table.num_rows, len(ends), len(windows) + 2)
    found = table["counts"].combine_chunks().flatten().to_numpy().reshape(shape)
    later, ever = found[:, :, 0], found[:, :, 1]
    hits = np.zeros(len(windows), np.int64)
    for end in range(len(ends)):
        for number in range(len(windows)):
            order = np.lexsort((-ever[:, end], -found[:, end, number + 2]))
            hits[number] += later[order[:_TOP], end].sum()
    return hits.tolist()


def taken_up(events: DataFrame) -> pa.Table:
    """`user`, `day`, `item_id`: the first date of each item of some users (5,000 by hash of their ids, 100 items of
    each at most, by hash too), in order of user and day."""
    first = events.where("weight > 0").groupBy("user_id", "item_id").agg(F.min("event_date").alias("_date"))
    users = first.select("user_id").distinct().orderBy(F.xxhash64("user_id"), "user_id").limit(_USERS)
    pair = F.struct(F.xxhash64("user_id", "item_id").alias("hash"), "item_id", F.unix_date("_date").alias("day"))
    taken = (
        first.join(F.broadcast(users), "user_id")
        .groupBy("user_id")
        .agg(F.slice(F.sort_array(F.collect_list(pair)), 1, _ITEMS).alias("_taken"))
        .select(F.xxhash64("user_id").alias("user"), F.inline("_taken"))
    )
    columns = ("user", "day", "item_id")
    return taken.select(*columns).toArrow().sort_by([(name, "ascending") for name in columns])


def likeness(taken: pa.Table, item: Ints, words: Any, seed: int = 0) -> tuple[int, float]:
    """How many pairs of items that a user took up on one date and on an earlier one, and how much more alike their
    texts are than those of two items by chance, each as often among the firsts and seconds as it is: 1 for not at all.

    `item` (of each row of `taken`) is its row in `words` (items x words, counts; -1 where it is none). Likeness is the
    cosine of counts times the logarithm of one over the share of items that have the word.
    """
    known = item >= 0
    user, day, item = taken["user"].to_numpy()[known], taken["day"].to_numpy()[known], item[known]
    _, start, of = np.unique(user, return_index=True, return_inverse=True)
    begins = np.flatnonzero((np.diff(user, prepend=user[:1] - 1) != 0) | (np.diff(day, prepend=0) != 0))
    earlier = begins[np.searchsorted(begins, np.arange(len(user)), side="right") - 1] - start[of]
    second = np.flatnonzero(earlier > 0)
    chance = np.random.default_rng(seed).random(len(second))
    first = start[of[second]] + (chance * earlier[second]).astype(np.int64)
    vectors = _weighed(words)
    one, other = vectors[item[first]], vectors[item[second]]
    if not len(second) or not vectors.nnz:
        return len(second), 1.0
    by_chance = float(np.asarray(one.mean(0) @ other.mean(0).T).item())
    alike = float(one.multiply(other).sum()) / len(second)
    return len(second), alike / by_chance if by_chance > 0 else 1.0


def _weighed(words: Any) -> Any:
    """Rows of length 1, or 0 where there are no words."""
    from scipy import sparse

    held = np.bincount(words.indices, minlength=words.shape[1])
    weighed = words @ sparse.diags(np.log((words.shape[0] + 1) / (held + 1.0)))
    norm = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.where(norm > 0, norm, 1)) @ weighed)
