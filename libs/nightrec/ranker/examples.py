"""What the ranker learns from: candidates of a past cut, labelled by what the users then did."""

from __future__ import annotations

from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.tables import RANKER_EXAMPLES

_BUCKETS = 1_000_000
# Of a single cut one user in so many is for the valid split.
_VALID_ONE_IN = 5


def acted(users: DataFrame, events: DataFrame) -> DataFrame:
    """What users known at the cut did after it: per user_id a map `acted` from each item acted on with a weight above 0
    to the event types (`kinds`, sorted) and the latest `rating`, null without one.

    `users` are USER_PROFILES of the cut, `events` clean events that arrived in the horizon after it. Users without an
    event up to the cut are left out: their features say nothing, and training on them lowered the quality for others.
    """
    known = users.where(F.col("event_count") > 0).select("user_id")
    rated = (F.col("event_type") == "rating") & F.col("value").isNotNull()
    pairs = (
        events.where(F.col("weight") > 0)
        .repartition("user_id")  # the second grouping then needs no shuffle
        .groupBy("user_id", "item_id")
        .agg(
            F.sort_array(F.collect_set("event_type")).alias("kinds"),
            F.max(F.when(rated, F.struct("event_ts", "value")))["value"].alias("rating"),
        )
    )
    return (
        pairs.groupBy("user_id")
        .agg(F.map_from_entries(F.collect_list(F.struct("item_id", F.struct("kinds", "rating")))).alias("acted"))
        .join(known, "user_id", "left_semi")
    )


def examples(
    candidates: DataFrame, acted: DataFrame, *,
    as_of: date, cut: date, split: str | None, negatives_share: float, seed: int,
) -> DataFrame:
    """RANKER_EXAMPLES of one cut: the candidates of the users of `acted`, with features as of the cut and a label.

    Grain: (cut_date, user_id, item_id). Keeps every positive. The train split keeps `negatives_share` of the others,
    chosen by a hash of user, item and seed; the valid split keeps all, so that its figures are those of whole lists.
    Without a `split`, as the cut is the only one, some of its users are for validation, all others for training.
    """
    known = candidates.where(F.col("features").isNotNull())
    joined = known.join(acted, known["list_key"] == acted["user_id"])
    did = joined.withColumn("_did", F.try_element_at("acted", F.col("item_id")))
    labelled = did.withColumns({
        "label": F.col("_did").isNotNull().cast("float"),
        "kinds": F.coalesce(F.col("_did.kinds"), F.array().cast("array<string>")),
        "rating": F.col("_did.rating"),
    })
    tests = F.pmod(F.xxhash64("user_id", F.lit(seed)), F.lit(_VALID_ONE_IN)) == 0
    by_user = F.when(tests, "valid").otherwise("train")
    fixed = {"as_of_date": F.lit(as_of), "cut_date": F.lit(cut), "split": F.lit(split) if split else by_user}
    kept = (F.col("split") == "valid") | (F.col("label") == 1) | _drawn(negatives_share, seed)
    return labelled.withColumns(fixed).where(kept).select(RANKER_EXAMPLES.names)


def _drawn(share: float, seed: int) -> Column:
    """True for about `share` of the (user, item) pairs, the same ones in every run and on every partition."""
    return F.pmod(F.xxhash64("user_id", "item_id", F.lit(seed)), F.lit(_BUCKETS)) < share * _BUCKETS


def union(frames: list[DataFrame]) -> DataFrame:
    """The rows of all frames of one shape."""
    return reduce(DataFrame.unionByName, frames)


def missed(acted: list[DataFrame], found: int) -> int:
    """How many of the users' actions were not among the candidates; `found` is the number of positives."""
    total = union([frame.select(F.size("acted").alias("n")) for frame in acted]).agg(F.sum("n")).first()
    return int((total[0] if total else 0) or 0) - found


def positives(written: DataFrame) -> dict[str, int]:
    """Positives in the written examples, by split. A ranker is learned where both splits have some."""
    counts = {split: int(n) for split, n in written.groupBy("split").agg(F.sum("label")).collect()}
    return {split: counts.get(split, 0) for split in ("train", "valid")}
