"""Whether tonight's lists may be served: every check over the whole of ranked_topk, in one query."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.seen import hides
from nightrec.serving import arrivals, continuity
from nightrec.serving.topk import expected_other_lists, list_id
from nightrec.serving.trailing import Past, Row
from nightrec.serving.verdict import LIST_RULES, Rules, checks
from nightrec.tables import EVENT_TYPES, LIST_KINDS, VOUCHED

_LIST = ("list_kind", "list_key")


def audit(
    ranked: DataFrame,
    shortfalls: DataFrame,
    items: DataFrame,
    users: DataFrame,
    events: DataFrame,
    *,
    rules: Rules,
    run_date: date,
    past: Past | None = None,
    before: DataFrame | None = None,
    vectors: Mapping[str, DataFrame] | None = None,
) -> list[Row]:
    """Every check of the night as a row of tables.AUDIT_RESULTS; nothing is raised (see `verdict.refuse`).

    All frames but `events` are of one night; `events` are all clean_events that had arrived by then. `past` is what the
    night is compared with, and `before` the ranked_topk of `past.reference`; None in a night without any. `vectors`
    have a column `vector` each, by what they belong to.
    """
    past = past or Past()
    reference = past.reference(run_date)
    since = reference.date if reference else run_date - timedelta(days=1)
    nights = two_nights(ranked, before)
    available = F.broadcast(items.agg(F.count_if("is_available").alias("available_count")))
    people = activity(events, items, run_date, since, repeats_allowed=rules.repeats_allowed)
    facts = list_facts(nights, shortfalls, items, users, people).crossJoin(available)
    figures = [
        list_figures(with_flags(facts, rules)),
        item_figures(nights, items),
        vector_figures(vectors or {}),
        day_figures(events, items, run_date, rules.limits.trailing_days),
        unvouched(ranked, items, rules.min_users),
    ]
    row = reduce(DataFrame.crossJoin, [frame for frame in figures if frame is not None]).first()
    assert row is not None  # an aggregate over no rows is still one row
    found = {"distinct_users": 0, "distinct_users_example": None, **NO_VECTORS, **row.asDict()}
    results = [
        *checks(found, rules),
        *continuity.checks(found, past, run_date, rules.limits),
        *arrivals.checks(past, found["days"], run_date, rules.limits),
    ]
    return [{"run_date": run_date, **result} for result in results]


def two_nights(ranked: DataFrame, before: DataFrame | None) -> DataFrame:
    """Tonight's rows of ranked_topk and the night before's, with `_tonight`: one shuffle brings both together."""
    columns = [*_LIST, "list_id", "rank", "item_id", "score", "source", "probability"]
    tonight = ranked.select(*columns, F.lit(True).alias("_tonight"))
    return tonight if before is None else tonight.unionByName(before.select(*columns, F.lit(False).alias("_tonight")))


def _if_tonight(value: Column) -> Column:
    return F.when(F.col("_tonight"), value)


def _is_finite(score: Column) -> Column:
    return ~F.isnan(score) & (F.abs(score) < float("inf"))


def _by_interest() -> Column:
    """Rows whose place neither hand nor chance gave."""
    return (F.col("source") != "editorial") & F.col("probability").isNull()


def item_figures(nights: DataFrame, items: DataFrame) -> DataFrame:
    """One row: rows that name unknown and unavailable items, how many items are there, available, and on a list, the
    item on most users' lists, and the one that was on most the night before and is on none."""
    by_user = (F.col("list_kind") == "user") & _by_interest()
    on_lists = nights.groupBy("item_id").agg(
        F.count_if("_tonight").alias("_rows"),
        F.count_if(F.col("_tonight") & by_user).alias("_lists"),
        F.count_if(~F.col("_tonight") & by_user).alias("_before"),
    )
    known, available = F.col("in_catalogue").isNotNull(), F.coalesce("is_available", F.lit(False))
    listed = F.coalesce(F.col("_rows") > 0, F.lit(False))
    wrong = {"known_items": listed & ~known, "available_items": listed & known & ~available}
    gone = F.when(available & ~listed & (F.col("_before") > 0), F.struct("_before", "item_id"))
    return (
        on_lists.join(items.select("item_id", "in_catalogue", "is_available"), "item_id", "full_outer")
        .agg(
            *(F.coalesce(F.sum(F.when(flag, F.col("_rows"))), F.lit(0)).alias(name) for name, flag in wrong.items()),
            *(
                F.min(F.when(flag, F.concat(F.lit("item "), "item_id"))).alias(f"{name}_example")
                for name, flag in wrong.items()
            ),
            F.count_if(F.coalesce("in_catalogue", F.lit(False))).alias("in_catalogue"),
            F.count_if(available).alias("available"),
            F.count_if(available & listed).alias("listed"),
            F.max(F.when(F.col("_lists") > 0, F.struct("_lists", "item_id"))).alias("_most"),
            F.max(gone).alias("_gone"),
        )
        .withColumns({
            "most_lists": F.col("_most._lists"), "most_listed": F.col("_most.item_id"),
            "gone_lists": F.col("_gone._before"), "gone_item": F.col("_gone.item_id"),
        })
        .drop("_most", "_gone")
    )  # fmt: skip


NO_VECTORS = {"broken_vectors": 0, "broken_vector": None, "mixed_vectors": 0, "mixed_vector": None}


def vector_figures(vectors: Mapping[str, DataFrame]) -> DataFrame | None:
    """One row: vectors that hold what is no finite number, and kinds of vectors whose lengths differ."""
    if not vectors:
        return None
    every = [frame.select(F.lit(name).alias("_of"), "vector") for name, frame in vectors.items()]
    broken = F.exists("vector", lambda part: ~_is_finite(part))
    of = reduce(DataFrame.unionByName, every).groupBy("_of").agg(
        F.count_if(broken).alias("_broken"), (F.min(F.size("vector")) != F.max(F.size("vector"))).alias("_mixed")
    )  # fmt: skip
    return of.agg(
        F.coalesce(F.sum("_broken"), F.lit(0)).alias("broken_vectors"),
        F.min(F.when(F.col("_broken") > 0, F.col("_of"))).alias("broken_vector"),
        F.count_if("_mixed").alias("mixed_vectors"),
        F.min(F.when(F.col("_mixed"), F.col("_of"))).alias("mixed_vector"),
    )


def day_figures(events: DataFrame, items: DataFrame, run_date: date, days: int) -> DataFrame:
    """One row with `days`: of each ingest date of the night and the days before it, its clean events, users (about),
    events of each type, of another day and of items outside the catalogue, those with a value, and their mean log."""
    outside = items.where("NOT in_catalogue").select("item_id", F.lit(True).alias("_outside"))
    valued = F.col("value").isNotNull()
    by_day = (
        events.where(F.col("ingest_date") > F.lit(run_date - timedelta(days=days + 1)))
        .join(F.broadcast(outside), "item_id", "left")
        .groupBy("ingest_date")
        .agg(
            F.count(F.lit(1)).alias("events"),
            # Within a twentieth, and without another shuffle: it says how much is chance.
            F.approx_count_distinct("user_id").alias("users"),
            *(F.count_if(F.col("event_type") == kind).alias(kind) for kind in EVENT_TYPES),
            F.count_if(F.col("event_date") != F.col("ingest_date")).alias("other_day"),
            F.count_if("_outside").alias("unknown_items"),
            F.count_if(valued).alias("valued"),
            F.avg(F.when(valued, F.log1p(F.abs("value")))).alias("log_value"),
        )
    )
    return by_day.agg(F.array_sort(F.collect_list(F.struct(*by_day.columns))).alias("days"))


def unvouched(ranked: DataFrame, items: DataFrame, least: int) -> DataFrame | None:
    """One row: rows of lists for nobody in particular that come from what users did with an item of fewer than `least`
    users, the item of a list of similar ones included. None where one user is enough."""
    if least < 2:
        return None
    rows = ranked.where((F.col("list_kind") != "user") & F.col("source").isin(*VOUCHED))
    named = rows.select(*_LIST, "item_id").unionByName(
        rows.where("list_kind = 'item'").select(*_LIST, F.col("list_key").alias("item_id"))
    )
    few = named.join(items.where(F.col("user_count") < least).select("item_id"), "item_id", "left_semi")
    example = F.concat(F.lit("item "), "item_id", F.lit(" in the list of "), F.concat_ws(" ", *_LIST))
    return few.agg(F.count(F.lit(1)).alias("distinct_users"), F.min(example).alias("distinct_users_example"))


def activity(
    events: DataFrame, items: DataFrame, run_date: date, since: date, *, repeats_allowed: bool
) -> DataFrame:  # fmt: skip
    """One row per user of the events: what the user has seen, all and available (null where repeats are allowed),
    whether there is news of the user later than `since`, and events that count of the night's own date."""
    news = F.max(F.col("ingest_date") > F.lit(since)).alias("_news")
    tonight = F.count_if((F.col("ingest_date") == F.lit(run_date)) & (F.col("weight") > 0)).alias("_tonight_count")
    user = (F.lit("user").alias("list_kind"), F.col("user_id").alias("list_key"))
    if repeats_allowed:
        none = F.lit(None).cast("array<string>")
        late = events.where(F.col("ingest_date") > F.lit(min(since, run_date - timedelta(days=1))))
        found = late.groupBy(*user).agg(news, tonight)
        return found.withColumns({"_seen": none, "_seen_available": none})
    available = F.broadcast(items.where("is_available").select("item_id", F.lit(True).alias("_available")))
    seen = hides(repeats_allowed=False)
    return (
        events.select("user_id", "item_id", "event_type", "ingest_date", "weight")
        .join(available, "item_id", "left")
        .groupBy(*user)
        .agg(
            F.collect_set(F.when(seen, F.col("item_id"))).alias("_seen"),
            F.collect_set(F.when(seen & F.col("_available"), F.col("item_id"))).alias("_seen_available"),
            news,
            tonight,
        )
    )


def list_facts(
    nights: DataFrame, shortfalls: DataFrame, items: DataFrame, users: DataFrame, people: DataFrame
) -> DataFrame:
    """One row per list that exists, existed or should: its items, ranks and scores by rank, and what they are held
    against. `nights` of `two_nights`, `people` of `activity`."""
    row = F.struct("rank", "item_id", "score")
    interest = F.when(_by_interest(), F.col("item_id"))
    rows = F.array_sort(F.collect_list(_if_tonight(row)))
    lists = nights.groupBy(*_LIST).agg(
        F.when(F.size(rows) > 0, rows).alias("_rows"),
        F.collect_set(_if_tonight(F.col("list_id"))).alias("_list_ids"),
        F.collect_set(_if_tonight(interest)).alias("_now"),
        F.collect_set(F.when(~F.col("_tonight"), interest)).alias("_then"),
        F.max(~F.col("_tonight")).alias("_existed"),
    )
    user = F.lit("user").alias("list_kind")
    profiles = users.select(
        user,
        F.col("user_id").alias("list_key"),
        F.col("is_eligible").alias("is_expected"),
        "blocked_items",
        "event_count",
    )
    others = expected_other_lists(items, users).withColumn("is_expected", F.lit(True))
    return (
        lists.join(profiles.unionByName(others, allowMissingColumns=True), [*_LIST], "full_outer")
        .join(shortfalls.select(*_LIST, F.col("found").alias("short_of_k")), [*_LIST], "left")
        .join(people, [*_LIST], "left")
    )


def with_flags(facts: DataFrame, rules: Rules) -> DataFrame:
    """`facts` with one boolean per list rule (true where it is broken) and with what the shares are made of."""
    items, ranks, scores = F.col("_rows.item_id"), F.col("_rows.rank"), F.col("_rows.score")
    exists, user = F.col("_rows").isNotNull(), F.col("list_kind") == "user"
    expected = F.coalesce("is_expected", F.lit(False))
    length = F.when(exists, F.size("_rows")).otherwise(0)
    short = (length < rules.k) & (F.coalesce("short_of_k", F.lit(-1)) == length)
    none = F.array().cast("array<string>")
    # Blocked items that are not available are subtracted too: at least this many items were left to show.
    hidden = F.array_union(F.coalesce("_seen_available", none), F.coalesce("blocked_items", none))
    enough = F.col("available_count") - F.size(hidden) >= rules.k
    wrong = {
        # A user without any list is for user_share to judge, which tolerates a few.
        "list_length": (exists | (expected & ~user)) & ~short & ((length != rules.k) | F.col("short_of_k").isNotNull()),
        "unique_items": F.size(F.array_distinct(items)) < length,
        "ranks": ranks != F.sequence(F.lit(1), length),
        "finite_scores": F.exists(scores, lambda score: F.isnan(score) | (F.abs(score) == float("inf"))),
        "score_range": F.exists(scores, lambda score: score < 0),
        "score_order": scores != F.sort_array(scores, asc=False),
        "list_ids": F.col("_list_ids") != F.array(list_id(items)),
        "not_seen": user & F.arrays_overlap(items, "_seen"),
        "not_blocked": user & F.arrays_overlap(items, "blocked_items"),
        "not_itself": (F.col("list_kind") == "item") & F.array_contains(items, F.col("list_key")),
        "eligible_only": user & ~expected,
    }
    both = user & exists & F.coalesce("_existed", F.lit(False))
    shorter = F.least(F.size("_now"), F.size("_then"))
    changed = 1 - F.size(F.array_intersect("_now", "_then")) / F.nullif(shorter, F.lit(0))
    tonight = F.coalesce("_tonight_count", F.lit(0))
    flags = {
        name: F.coalesce(exists & flag if name != "list_length" else flag, F.lit(False)) for name, flag in wrong.items()
    }
    return facts.select(
        *_LIST,
        "_rows",
        exists.alias("exists"),
        expected.alias("expected"),
        *(flag.alias(name) for name, flag in flags.items()),
        (user & expected & ((length == rules.k) | (short & ~enough))).alias("covered"),
        (user & expected & short & enough).alias("needless"),
        F.when(user & (F.col("event_count") > 0), F.filter(scores, _is_finite)).alias("_scores"),
        both.alias("kept"),
        (user & ~exists & F.coalesce("_existed", F.lit(False))).alias("lost"),
        F.when(both, changed).alias("_changed"),
        F.coalesce("_news", F.lit(False)).alias("_news"),
        (user & (tonight > 0)).alias("active"),
        (user & (tonight > 0) & (F.col("event_count") <= tonight)).alias("newcomers"),
    )


def list_figures(lists: DataFrame) -> DataFrame:
    """One row: how many lists break each rule, with an example, and the counts behind the shares."""
    example = F.concat_ws(" ", *_LIST)

    def kind(name: str, flag: str) -> Column:
        return F.count_if((F.col("list_kind") == name) & F.col(flag)).alias(f"{flag}_{name}")

    return lists.agg(
        *(F.count_if(F.col(name)).alias(name) for name in LIST_RULES),
        *(F.min(F.when(F.col(name), example)).alias(f"{name}_example") for name in LIST_RULES),
        *(kind(name, flag) for name in LIST_KINDS for flag in ("exists", "expected")),
        F.count_if("covered").alias("covered"),
        F.min(F.when((F.col("list_kind") == "user") & F.col("expected") & ~F.col("covered"), example)).alias(
            "covered_example"
        ),
        F.count_if("needless").alias("needless"),
        F.min(F.when(F.col("needless"), example)).alias("needless_example"),
        F.max(F.array_max("_scores")).alias("best"),
        F.min(F.array_min("_scores")).alias("worst"),
        *(F.count_if(name).alias(name) for name in ("kept", "lost", "active", "newcomers")),
        *_spread("churn", F.col("_changed")),
        *_spread("quiet_churn", F.when(~F.col("_news"), F.col("_changed"))),
        F.count_if(F.size("_scores") > 0).alias("scored_lists"),
        F.coalesce(F.sum(F.size("_scores")), F.lit(0)).alias("scores"),
        *_moments(),
    )


def _spread(name: str, share: Column) -> tuple[Column, ...]:
    """How many lists have a share, its mean and its standard deviation, to 9 decimals: the last bits are order's."""
    return (
        F.count(share).alias(f"{name}_lists"),
        F.round(F.avg(share), 9).alias(f"{name}_mean"),
        F.round(F.stddev_pop(share), 9).alias(f"{name}_spread"),
    )


def _moments() -> tuple[Column, ...]:
    """Mean and standard deviation of all scores, likewise."""
    none = F.lit(0.0)
    total = F.sum(F.aggregate("_scores", none, lambda some, score: some + score))
    squares = F.sum(F.aggregate("_scores", none, lambda some, score: some + score * score))
    count = F.nullif(F.sum(F.size("_scores")), F.lit(0))
    mean = total / count
    variance = F.greatest(squares / count - mean * mean, none)
    return F.round(mean, 9).alias("score_mean"), F.round(F.sqrt(variance), 9).alias("score_deviation")
