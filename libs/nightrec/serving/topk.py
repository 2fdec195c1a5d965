"""Cut every list to K: by the ranker's score where a user has a history, down the ladder everywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from nightrec.tables import LADDER, SOURCES

_LIST = ("list_kind", "list_key")
_STEPS = tuple(dict.fromkeys(LADDER.values()))

# A score's last bits depend on the machine's kernels and on which rows share a batch. Rounded to 6 decimals, scores
# that are equal in all but those bits tie, and the item id decides: another machine publishes the same order.
SCORE_DECIMALS = 6


@dataclass(frozen=True)
class Quota:
    """The last `places` of a list are kept for what it drew of new items; by chance in so large a `share` of lists."""

    places: int = 0
    share: float = 1.0


def split(candidates: DataFrame, users: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Candidates of user lists whose user has a history (the ranker orders them), and all others (the ladder does)."""
    known = users.where("event_count > 0").select(F.lit("user").alias("list_kind"), F.col("user_id").alias("list_key"))
    return candidates.join(known, [*_LIST], "left_semi"), candidates.join(known, [*_LIST], "left_anti")


def ranked_topk(
    scored: DataFrame | None, ladder: DataFrame, items: DataFrame, users: DataFrame, *, k: int, run_date: date,
    pins: Mapping[str, int], quota: Quota, depth: int | None = None,
) -> DataFrame:  # fmt: skip
    """One row per item of each list, at most `k` of them, as in tables.RANKED_TOPK. With a `depth` beyond `k` the lists
    go on behind their first `k`, which stay as they are.

    scored: candidates with `score` in (0, 1): ordered by score rounded to 6 decimals, then item id. Their source is the
    candidate's. A score that is not a number comes first, where the audit sees it. None where there is no ranker.
    ladder: candidates without a score: ordered by the first step of the ladder that nominated the item, then by its
    rank there, then item id. Score is 1/position, source is the one that nominated the item at that step.
    pins: the places that editorial picks have; quota: those that new items have (see `placed` for both).
    A list with fewer candidates than `k` is as long as they are; `shortfalls` records it.
    """
    rows = by_ladder(ladder) if scored is None else by_score(scored).unionByName(by_ladder(ladder))
    best_first = [F.col("score").desc_nulls_last(), F.col("_place"), F.col("item_id")]
    depth = max(depth or k, k)
    places = {item: slot for item, slot in pins.items() if slot <= k}
    if places or quota.places:
        cut = placed(with_turns(rows, quota, best_first, k, run_date), places, best_first, k, depth)
    else:
        rank = F.row_number().over(Window.partitionBy(*_LIST).orderBy(*best_first))
        nobody = F.lit(None).cast("double")
        cut = rows.withColumns({"rank": rank, "probability": nobody}).where(F.col("rank") <= depth)
    score = F.coalesce("score", F.round(1.0 / F.col("rank"), SCORE_DECIMALS))
    row = F.struct("rank", "item_id", score.alias("score"), "source", "because_item_id", "probability")
    # The window has brought each list together already: this grouping costs no second shuffle.
    lists = cut.groupBy(*_LIST).agg(F.array_sort(F.collect_list(row)).alias("_rows"))
    lists = lists.withColumn("list_id", list_id(F.col("_rows.item_id")))
    return with_reason(lists, items, users).select(
        F.lit(run_date).alias("run_date"), *_LIST, "list_id", "rank", "item_id", "score", "source", "reason",
        "probability",
    )  # fmt: skip


def with_turns(rows: DataFrame, quota: Quota, best_first: list[Column], k: int, run_date: date) -> DataFrame:
    """`rows` with `_turn`, from 1: of the items drawn for a list that has no better place for them, the order in which
    the first `places` of the quota's were drawn; NULL for all others."""
    if not quota.places:
        return rows.withColumn("_turn", F.lit(None).cast("int"))
    # A share of the hashes' range, drawn anew each night.
    chance = F.pmod(F.xxhash64(F.lit(run_date.isoformat()), *_LIST, F.lit("quota")), F.lit(2**53)) < quota.share * 2**53
    at = F.row_number().over(Window.partitionBy(*_LIST).orderBy(*best_first))
    drawn = F.col("_drawn").isNotNull() & (at > k - quota.places) & chance & (F.col("list_kind") != "item")
    turn = F.row_number().over(Window.partitionBy(*_LIST, "_is_drawn").orderBy("_drawn", "item_id"))
    return rows.withColumn("_is_drawn", drawn).withColumn(
        "_turn", F.when(F.col("_is_drawn") & (turn <= quota.places), turn)
    ).withColumn("_chance", F.col("_chance") * quota.share).drop("_is_drawn")


def placed(rows: DataFrame, places: Mapping[str, int], best_first: list[Column], k: int, depth: int) -> DataFrame:
    """`rows` cut to `depth` with their `rank`: editorial picks at the `places` of their items, new items with a `_turn`
    on the last places of the first `k`, all others in order around them. Lists of similar items are as they are.

    A pick that may not be shown is no candidate, and its place goes to the next in order; of picks for one place the
    first by hand has it, and the others are candidates as all are, as is a new item whose place a pick has. A list
    shorter than a place ends with the item. A pick's source is editorial, a new item's new_items, and the score that of
    the row before it, or behind it where there is none: scores fall with the rank.
    """
    pin = F.create_map(*(F.lit(part) for pin in places.items() for part in pin))[F.col("item_id")]
    may = F.col("_pick").isNotNull() & (F.col("list_kind") != "item")
    pick = F.when(may, pin) if places else F.lit(None).cast("int")
    turns = F.max("_turn").over(Window.partitionBy(*_LIST))
    # As many as there are, on the last places.
    slot = F.coalesce(pick, F.lit(k) - turns + F.col("_turn"))
    first = F.row_number().over(Window.partitionBy(*_LIST, "_slot").orderBy(F.col("_pick").asc_nulls_last(), "item_id"))
    rows = rows.withColumn("_slot", slot).withColumn("_slot", F.when(first == 1, F.col("_slot")))
    # The n-th of the others has the n-th place that is free.
    others = Window.partitionBy(*_LIST, F.isnull("_slot")).orderBy(*best_first)
    taken = F.collect_set("_slot").over(Window.partitionBy(*_LIST))
    free = F.array_except(F.sequence(F.lit(1), F.lit(depth)), taken)
    at = rows.withColumn("_at", F.coalesce("_slot", F.get(free, F.row_number().over(others) - 1)))
    in_order = Window.partitionBy(*_LIST).orderBy("_at")
    is_other, is_new = F.col("_slot").isNull(), F.col("_turn").isNotNull() & pick.isNull()
    other = F.when(is_other, F.col("score"))
    before = F.min(other).over(in_order.rowsBetween(Window.unboundedPreceding, -1))
    behind = F.max(other).over(in_order.rowsBetween(1, Window.unboundedFollowing))
    return at.where(F.col("_at").isNotNull()).select(
        *_LIST,
        "item_id",
        "because_item_id",
        F.when(is_other, F.col("source")).when(is_new, "new_items").otherwise("editorial").alias("source"),
        F.when(is_other, F.col("score")).otherwise(F.coalesce(before, behind)).alias("score"),
        F.row_number().over(in_order).alias("rank"),
        F.when(~is_other & is_new, F.col("_chance")).alias("probability"),
    )


def by_score(scored: DataFrame) -> DataFrame:
    """Scored candidates in the columns of `by_ladder`; all have the same place on the ladder."""
    score, place = F.round("score", SCORE_DECIMALS).alias("score"), F.lit(0).cast("bigint").alias("_place")
    return scored.select(*_LIST, "item_id", "source", "because_item_id", score, *_wished(), place)


def _wished() -> tuple[Column, ...]:
    """What may give a candidate a place that its order does not."""
    chance = F.col("new_items_score").cast("double").alias("_chance")
    return F.col("editorial_rank").alias("_pick"), F.col("new_items_rank").alias("_drawn"), chance


def by_ladder(candidates: DataFrame) -> DataFrame:
    """Candidates with their place on the ladder: its first step that nominated the item, then the rank there.

    `source` is the one that nominated it there; of two sources of one step that rank it alike, the first of SOURCES.
    """
    # Step, rank and source as digits of one number: comparing structs of them took twice the time of the whole cut.
    nominations = [
        F.lit((_STEPS.index(LADDER[source]) << 40) + order) + F.col(f"{source}_rank").cast("bigint") * 32
        for order, source in enumerate(SOURCES)
    ]
    source = F.element_at(F.array(*map(F.lit, SOURCES)), (F.col("_first") % 32 + 1).cast("int"))
    return candidates.withColumn("_first", F.least(*nominations)).select(
        *_LIST,
        "item_id",
        source.alias("source"),
        "because_item_id",
        F.lit(None).cast("double").alias("score"),
        *_wished(),
        F.shiftright("_first", 5).alias("_place"),
    )


def list_id(items: Column) -> Column:
    """Fingerprint of list_kind, list_key and the items in order: 16 hex digits of the SHA-256 of `length:text` of each.

    The lengths (in characters) keep apart what runs together otherwise: item "ab" from items "a", "b".
    """
    parts = F.concat(F.array(*(F.col(name) for name in _LIST)), items)
    text = F.array_join(F.transform(parts, lambda part: F.concat(F.length(part).cast("string"), F.lit(":"), part)), "")
    return F.substring(F.sha2(text, 256), 1, 16)


def with_reason(lists: DataFrame, items: DataFrame, users: DataFrame) -> DataFrame:
    """Lists spread to one row per item, with the reason in words: titles for people, not ids."""
    user = F.col("list_kind") == "user"
    segments = users.select(F.col("user_id").alias("_user_id"), F.col("segment").alias("_segment"))
    titles = F.broadcast(items.select(F.col("item_id").alias("because_item_id"), F.col("title").alias("_title")))
    rows = (
        lists.join(segments, user & (F.col("list_key") == F.col("_user_id")), "left")
        .select(*_LIST, "list_id", "_segment", F.inline("_rows"))
        .join(titles, "because_item_id", "left")
    )
    title = F.coalesce("_title", "because_item_id")
    segment = F.when(F.col("list_kind") == "segment", F.col("list_key")).otherwise(F.col("_segment"))
    own = F.when(user & title.isNotNull(), title)
    together = F.coalesce(F.concat(F.lit("because of "), own), F.lit("often chosen together"))
    alike = F.coalesce(F.concat(F.lit("similar to "), own), F.lit("similar description"))
    words = {
        "als": F.coalesce(F.concat(F.lit("because of "), own), F.lit("your taste is near this")),
        "neighbour_users": F.lit("people with your taste chose this"),
        **dict.fromkeys(("cooccurrence", "bm25", "linear"), together),
        "transitions": F.coalesce(F.concat(F.lit("often next after "), own), F.lit("often chosen next")),
        **dict.fromkeys(("text", "keywords"), alike),
        "attributes": F.coalesce(F.concat(F.lit("of a kind with "), own), F.lit("of the same kind")),
        "habit": F.lit("you come back to this"),
        "newcomers": F.lit("what newcomers begin with"),
        "segment": F.coalesce(F.concat(F.lit("popular with "), segment), F.lit("popular with people like you")),
        "trending": F.lit("popular this week"),
        "popularity": F.lit("popular now"),
        "new_items": F.lit("new"),
        "editorial": F.lit("picked by the editors"),
    }
    reason = F.coalesce(*(F.when(F.col("source") == source, words[source]) for source in SOURCES))
    return rows.withColumn("reason", reason)


def expected_lists(items: DataFrame, users: DataFrame) -> DataFrame:
    """Kind and key of every list that should exist: of eligible users, their segments, catalogue items, everyone."""
    eligible = users.where("is_eligible").select(F.lit("user").alias("list_kind"), F.col("user_id").alias("list_key"))
    return eligible.unionByName(expected_other_lists(items, users))


def expected_other_lists(items: DataFrame, users: DataFrame) -> DataFrame:
    """`expected_lists` of all kinds but user."""
    eligible = users.where("is_eligible AND segment IS NOT NULL")
    segments = eligible.select(F.lit("segment").alias("list_kind"), F.col("segment").alias("list_key")).distinct()
    similar = items.where("in_catalogue").select(F.lit("item").alias("list_kind"), F.col("item_id").alias("list_key"))
    everyone = users.sparkSession.range(1).select(
        F.lit("everyone").alias("list_kind"), F.lit("everyone").alias("list_key")
    )
    return segments.unionByName(similar).unionByName(everyone)


def shortfalls(candidates: DataFrame, items: DataFrame, users: DataFrame, *, k: int, run_date: date) -> DataFrame:
    """One row per list that should exist and has fewer than `k` candidates, none included, as in tables.SHORTFALLS.

    Ranking drops no candidate before the cut, so counting them tells the length of every list without scoring any.
    """
    found = candidates.groupBy(*_LIST).agg(F.count("*").cast("int").alias("found"))
    available = F.broadcast(items.agg(F.count_if("is_available").alias("_available")))
    count = F.coalesce("found", F.lit(0))
    others = F.when(F.col("list_kind") == "user", "the others are seen, blocked or named by no source").otherwise(
        "no source names another"
    )
    cause = F.concat(
        F.lit("only "),
        count.cast("string"),
        F.lit(" of "),
        F.col("_available").cast("string"),
        F.lit(" available items: "),
        others,
    )
    return (
        expected_lists(items, users)
        .join(found, [*_LIST], "left")
        .where(count < k)
        .crossJoin(available)
        .select(
            F.lit(run_date).alias("run_date"),
            *_LIST,
            F.lit(k).alias("wanted"),
            count.alias("found"),
            cause.alias("cause"),
        )
    )
