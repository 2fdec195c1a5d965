"""What the candidates permit: how much of what users then did was nominated at all, by which source."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

UNION = "union"
ORACLE = "oracle"


def reach(
    candidates: DataFrame, truth: DataFrame, sources: Sequence[str], depths: Sequence[int], k: int
) -> dict[tuple[str, int], tuple[float, int]]:
    """By source and depth: the recall of the source's first `depth` candidates, summed over users, and the users.

    `candidates` has user_id, item_id and of each source SOURCE_rank (1-based, NULL where it did not nominate the item),
    one row per pair; `truth` user_id and item_id, one row per pair. A user without candidates counts as 0. UNION at a
    depth is what any source has within it. ORACLE at `k` is no recall but the NDCG@k that all candidates in the best
    order could have: as `ranking.figures` defines it, with every hit at the top.
    """
    ranks = {source: F.col(f"{source}_rank") for source in sources}
    ranks[UNION] = F.least(*ranks.values()) if len(ranks) > 1 else next(iter(ranks.values()))
    wanted = {(name, depth): F.count_if(rank <= depth) for name, rank in ranks.items() for depth in depths}
    wanted[ORACLE, k] = F.least(F.count(ranks[UNION]), F.lit(k))
    truths = F.count(F.lit(1))
    users = (
        truth.join(candidates, ["user_id", "item_id"], "left")
        .groupBy("user_id")
        .agg(truths.alias("_truth"), *(count.alias(_name(key)) for key, count in wanted.items()))
    )
    means = {key: F.sum(F.col(_name(key)) / F.col("_truth")) for key in wanted if key[0] != ORACLE}
    most = F.least(F.col("_truth"), F.lit(k))
    means[ORACLE, k] = F.sum(_ideal(F.col(_name((ORACLE, k))), k) / _ideal(most, k))
    found = users.agg(F.count(F.lit(1)).alias("_users"), *(mean.alias(_name(key)) for key, mean in means.items()))
    row = found.collect()[0]
    return {key: (float(row[_name(key)] or 0.0), int(row["_users"])) for key in wanted}


def pooled(parts: Sequence[Mapping[tuple[str, int], tuple[float, int]]]) -> dict[tuple[str, int], float]:
    """Means over the users of all parts that know the source; 0 without users."""
    keys = dict.fromkeys(key for part in parts for key in part)
    sums = {key: [part[key] for part in parts if key in part] for key in keys}
    return {key: sum(value for value, _ in found) / max(sum(n for _, n in found), 1) for key, found in sums.items()}


def _name(key: tuple[str, int]) -> str:
    return f"_{key[0]}_{key[1]}"


def _ideal(hits: Column, k: int) -> Column:
    """The DCG of so many hits at the top, none included."""
    best = itertools.accumulate((1 / math.log2(rank + 1) for rank in range(1, k + 1)), initial=0.0)
    return F.element_at(F.array(*(F.lit(value) for value in best)), hits.cast("int") + 1)
