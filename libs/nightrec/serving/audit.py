"""Whether tonight's lists may be served: every check over the whole of ranked_topk, in two aggregates and one query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isfinite
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.config import Audit
from nightrec.errors import AuditRefused
from nightrec.serving.topk import expected_other_lists, list_id
from nightrec.tables import LIST_KINDS

_LIST = ("list_kind", "list_key")
Results = list[dict[str, Any]]

# What a list may not be: (check, what is wrong with the example). The conditions are in `_wrong`.
_LIST_RULES = {
    "list_length": "has neither K items nor a shortfall that says how many",
    "unique_items": "holds an item twice",
    "ranks": "has ranks other than 1, 2, ... without gaps",
    "finite_scores": "has a score that is not a finite number",
    "score_order": "has a score above the one before it",
    "list_ids": "has a list_id that is not the fingerprint of its items",
    "not_seen": "holds an item its user has acted on",
    "not_blocked": "holds an item its user has blocked",
    "not_itself": "names its own item as similar",
    "eligible_only": "is for a user who gets no list tonight",
}
_ITEM_RULES = {"known_items": "is not in item_profiles", "available_items": "is not available"}


@dataclass(frozen=True)
class Rules:
    """What tonight's lists are held against: list length `k`, whether seen items may come back, and the limits."""

    k: int
    repeats_allowed: bool
    limits: Audit


def audit(
    ranked: DataFrame, shortfalls: DataFrame, items: DataFrame, users: DataFrame, events: DataFrame, rules: Rules, run_date: date
) -> Results:
    """Every check of the night as a row of tables.AUDIT_RESULTS; nothing is raised (see `refuse`).

    All frames but `events` are of one night; `events` are all clean_events that had arrived by then.
    """
    available = F.broadcast(items.agg(F.count_if("is_available").alias("available_count")))
    facts = list_facts(ranked, shortfalls, items, users, events, rules).crossJoin(available)
    found = list_figures(with_flags(facts, rules)).crossJoin(item_figures(ranked, items)).first()
    assert found is not None  # an aggregate over no rows is still one row
    return [{"run_date": run_date, **row} for row in checks(found.asDict(), rules)]


def item_figures(ranked: DataFrame, items: DataFrame) -> DataFrame:
    """One row: how many rows name unknown or unavailable items, and how many available items there are, and on lists."""
    on_lists = ranked.groupBy("item_id").agg(F.count("*").alias("_rows"))
    known, available = F.col("in_catalogue").isNotNull(), F.coalesce("is_available", F.lit(False))
    listed = F.col("_rows").isNotNull()
    wrong = {"known_items": listed & ~known, "available_items": listed & known & ~available}
    return on_lists.join(items.select("item_id", "in_catalogue", "is_available"), "item_id", "full_outer").agg(
        *(F.coalesce(F.sum(F.when(flag, F.col("_rows"))), F.lit(0)).alias(name) for name, flag in wrong.items()),
        *(F.min(F.when(flag, F.concat(F.lit("item "), "item_id"))).alias(f"{name}_example") for name, flag in wrong.items()),
        F.count_if(available).alias("available"),
        F.count_if(available & listed).alias("listed"),
    )


def list_facts(
    ranked: DataFrame, shortfalls: DataFrame, items: DataFrame, users: DataFrame, events: DataFrame, rules: Rules
) -> DataFrame:
    """One row per list that exists or should: its items, ranks and scores by rank, and what they are held against."""
    rows = F.array_sort(F.collect_list(F.struct("rank", "item_id", "score")))
    lists = ranked.groupBy(*_LIST).agg(rows.alias("_rows"), F.collect_set("list_id").alias("_list_ids"))
    user = F.lit("user").alias("list_kind")
    people = users.select(
        user, F.col("user_id").alias("list_key"), F.col("is_eligible").alias("is_expected"), "blocked_items",
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
        events.where("event_type <> 'impression'").select("user_id", "item_id").join(available, "item_id", "left")
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
    flags = {name: F.coalesce(exists & flag if name != "list_length" else flag, F.lit(False)) for name, flag in wrong.items()}
    return facts.select(
        *_LIST, "_rows", exists.alias("exists"), expected.alias("expected"), *(flag.alias(name) for name, flag in flags.items()),
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
        *(F.count_if(F.col(name)).alias(name) for name in _LIST_RULES),
        *(F.min(F.when(F.col(name), example)).alias(f"{name}_example") for name in _LIST_RULES),
        *(kind(name, flag) for name in LIST_KINDS for flag in ("exists", "expected")),
        F.count_if("covered").alias("covered"),
        F.min(F.when((F.col("list_kind") == "user") & F.col("expected") & ~F.col("covered"), example)).alias("covered_example"),
        F.count_if("needless").alias("needless"),
        F.min(F.when(F.col("needless"), example)).alias("needless_example"),
        F.max(F.array_max("_scores")).alias("best"),
        F.min(F.array_min("_scores")).alias("worst"),
    )


def checks(found: Mapping[str, Any], rules: Rules) -> Results:
    """The rows of tables.AUDIT_RESULTS, run_date apart, from the figures of the night."""
    limits = rules.limits
    lists = sum(found[f"exists_{kind}"] for kind in LIST_KINDS)
    absent = [kind for kind in LIST_KINDS if found[f"expected_{kind}"] and not found[f"exists_{kind}"]]
    rows = [_row("not_empty", lists > 0, lists, 1, f"{lists} lists")]
    rows.append(_row("list_kinds", not absent, len(absent), 0, f"no list of kind {', '.join(absent)}" if absent else "every kind is there"))
    for name, words in {**_LIST_RULES, **_ITEM_RULES}.items():
        detail = f"{found[f'{name}_example']} {words}" if found[name] else "holds everywhere"
        rows.append(_row(name, not found[name], found[name], 0, detail))
    eligible, covered = found["expected_user"], found["covered"]
    share = covered / eligible if eligible else 1.0
    missing = f"; {found['covered_example']} has neither" if found["covered_example"] else ""
    rows.append(_row("user_share", share >= limits.min_user_share, share, limits.min_user_share,
                     f"{covered} of {eligible} eligible users have K items, or a shortfall because fewer were left{missing}"))
    share = found["listed"] / found["available"] if found["available"] else 0.0
    rows.append(_row("catalogue_share", share >= limits.min_catalogue_share, share, limits.min_catalogue_share,
                     f"{found['listed']} of {found['available']} available items are on a list"))
    spread = 0.0 if found["best"] is None else found["best"] - found["worst"]
    enough = found["best"] is None or (isfinite(spread) and spread >= limits.min_score_spread)
    rows.append(_row("score_spread", enough, spread, limits.min_score_spread,
                     "no list has a ranker's score" if found["best"] is None else f"scores from {found['worst']:g} to {found['best']:g}"))
    needless = found["needless"]
    detail = f"{found['needless_example']} is short although K items were left to show" if needless else "nothing was left to add"
    rows.append(_row("needless_shortfalls", not needless, needless, 0, detail, severity="warn"))
    return rows


def _row(name: str, passed: bool, found: float, limit: float, detail: str, severity: str = "stop") -> dict[str, Any]:
    return {"check_name": name, "severity": severity, "passed": passed, "found": float(found), "limit": float(limit), "detail": detail}


def content_row(run_date: date, content: str) -> dict[str, Any]:
    """The note that says which rows of ranked_topk were audited, by the fingerprint of their files."""
    return {"run_date": run_date, **_row("content", True, 0, 0, f"audited the files {content} of ranked_topk", severity="note")}


def refuse(results: Sequence[Mapping[str, Any]], run_date: date) -> None:
    """Raise AuditRefused with one line per failed check of severity stop; nothing happens where there is none."""
    failed = [row for row in results if row["severity"] == "stop" and not row["passed"]]
    if failed:
        lines = [f"  {row['check_name']}: found {row['found']:g}, limit {row['limit']:g}; {row['detail']}" for row in failed]
        raise AuditRefused("\n".join([f"ranked_topk of {run_date} may not be published; what was published before stays", *lines]))


def require_audited(results: Sequence[Mapping[str, Any]], run_date: date, content: str) -> None:
    """Raise AuditRefused unless `results` are of an audit of exactly this content of ranked_topk, with no failed stop."""
    if not results:
        raise AuditRefused(f"ranked_topk of {run_date} was never audited; run the audit of {run_date} first")
    refuse(results, run_date)
    if content_row(run_date, content)["detail"] not in {row["detail"] for row in results if row["check_name"] == "content"}:
        raise AuditRefused(f"ranked_topk of {run_date} has been written anew since its audit; run the audit of {run_date} again")
