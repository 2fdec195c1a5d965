"""What the ranker learns from: candidates of a past cut, labelled by what the users then did."""

from __future__ import annotations

from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.tables import RANKER_EXAMPLES

_BUCKETS = 1_000_000
# Of a single cut one user in so many is fold 1.
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
    as_of: date, cut: date, fold: int | None, negatives_share: float, seed: int,
) -> DataFrame:
    """RANKER_EXAMPLES of one cut: the candidates of the users of `acted`, with features as of the cut and a label.

    Grain: (cut_date, user_id, item_id). Lessons are every positive, and `negatives_share` of the others, chosen by a
    hash of user, item and seed. Fold 0 keeps its lessons alone; later ones keep all, so that figures on them are those
    of whole lists. Without a `fold`, as the cut is the only one, some of its users are fold 1, all others fold 0.
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
    found = labelled.withColumns({
        "as_of_date": F.lit(as_of),
        "cut_date": F.lit(cut),
        "fold": tests.cast("int") if fold is None else F.lit(fold),
        "is_lesson": (F.col("label") == 1) | _drawn(negatives_share, seed),
    })
    return found.where("fold > 0 OR is_lesson").select(RANKER_EXAMPLES.names)


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


def positives(written: DataFrame) -> dict[int, int]:
    """Positives in the written examples, by fold. A ranker is learned where two folds have some."""
    counted = written.groupBy("fold").agg(F.sum("label").alias("positives")).where("positives > 0")
    return {int(fold): int(count) for fold, count in counted.collect()}
