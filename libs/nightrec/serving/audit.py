"""Whether tonight's lists may be served: every check over the whole of ranked_topk, in two aggregates and one query."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.serving.topk import expected_other_lists, list_id
from nightrec.serving.verdict import LIST_RULES, Row, Rules, checks
from nightrec.tables import LIST_KINDS

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
) -> list[Row]:
    """Every check of the night as a row of tables.AUDIT_RESULTS; nothing is raised (see `verdict.refuse`).

    All frames but `events` are of one night; `events` are all clean_events that had arrived by then.
    """
    available = F.broadcast(items.agg(F.count_if("is_available").alias("available_count")))
    facts = list_facts(ranked, shortfalls, items, users, events, rules=rules).crossJoin(available)
    found = list_figures(with_flags(facts, rules)).crossJoin(item_figures(ranked, items)).first()
    assert found is not None  # an aggregate over no rows is still one row
    return [{"run_date": run_date, **row} for row in checks(found.asDict(), rules)]


def item_figures(ranked: DataFrame, items: DataFrame) -> DataFrame:
    """One row: rows that name unknown and unavailable items, and how many items are available, and on a list."""
    on_lists = ranked.groupBy("item_id").agg(F.count("*").alias("_rows"))
    known, available = F.col("in_catalogue").isNotNull(), F.coalesce("is_available", F.lit(False))
    listed = F.col("_rows").isNotNull()
    wrong = {"known_items": listed & ~known, "available_items": listed & known & ~available}
    return on_lists.join(items.select("item_id", "in_catalogue", "is_available"), "item_id", "full_outer").agg(
        *(F.coalesce(F.sum(F.when(flag, F.col("_rows"))), F.lit(0)).alias(name) for name, flag in wrong.items()),
        *(
            F.min(F.when(flag, F.concat(F.lit("item "), "item_id"))).alias(f"{name}_example")
            for name, flag in wrong.items()
        ),
        F.count_if(available).alias("available"),
        F.count_if(available & listed).alias("listed"),
    )


def list_facts(
    ranked: DataFrame, shortfalls: DataFrame, items: DataFrame, users: DataFrame, events: DataFrame, *, rules: Rules
) -> DataFrame:
    """One row per list that exists or should: its items, ranks and scores by rank, and what they are held against."""
    rows = F.array_sort(F.collect_list(F.struct("rank", "item_id", "score")))
    lists = ranked.groupBy(*_LIST).agg(rows.alias("_rows"), F.collect_set("list_id").alias("_list_ids"))
    user = F.lit("user").alias("list_kind")
    people = users.select(
        user,
        F.col("user_id").alias("list_key"),
        F.col("is_eligible").alias("is_expected"),
        "blocked_items",
        (F.col("event_count") > 0).alias("is_scored"),
    )
    others = expected_other_lists(items, users).withColumn("is_expected", F.lit(True))
    facts = lists.join(people.unionByName(others, allowMissingColumns=True), [*_LIST], "full_outer").join(
        shortfalls.select(*_LIST, F.col("found").alias("short_of_k")), [*_LIST], "left"
    )
    if rules.repeats_allowed:
        none = F.lit(None).cast("array<string>")
        return facts.withColumns({"_seen": none, "_seen_available": none})
    available = F.broadcast(items.where("is_available").select("item_id", F.lit(True).alias("_available")))
    seen = (
        events.where("event_type <> 'impression'")
        .select("user_id", "item_id")
        .join(available, "item_id", "left")
        .groupBy(user, F.col("user_id").alias("list_key"))
        .agg(
            F.collect_set("item_id").alias("_seen"),
            F.collect_set(F.when(F.col("_available"), F.col("item_id"))).alias("_seen_available"),
        )
    )
    return facts.join(seen, [*_LIST], "left")


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
        "score_order": scores != F.sort_array(scores, asc=False),
        "list_ids": F.col("_list_ids") != F.array(list_id(items)),
        "not_seen": user & F.arrays_overlap(items, "_seen"),
        "not_blocked": user & F.arrays_overlap(items, "blocked_items"),
        "not_itself": (F.col("list_kind") == "item") & F.array_contains(items, F.col("list_key")),
        "eligible_only": user & ~expected,
    }
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
        F.when(user & F.col("is_scored"), F.filter(scores, lambda score: ~F.isnan(score))).alias("_scores"),
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
    )
