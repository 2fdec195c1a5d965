"""Labels and sampling of one cut; the dates are tested through the job."""

from __future__ import annotations

import datetime as dt

import pytest
from pyspark.sql import functions as F

from nightrec.ranker.examples import acted, examples, missed, positives
from nightrec.tables import CANDIDATES, CLEAN_EVENTS, RANKER_EXAMPLES, USER_PROFILES

RATED, LATE = {"event_type": "rating"}, dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
CUT, AS_OF = dt.date(2026, 2, 24), dt.date(2026, 3, 10)


@pytest.fixture
def users(rows):
    return rows(USER_PROFILES, [
        {"user_id": "old", "event_count": 3},
        {"user_id": "silent", "event_count": 3},
        {"user_id": "new", "event_count": 0},  # of the snapshot, no event before the cut
    ])

ACTED = "user_id string, acted map<string, struct<kinds: array<string>, rating: double>>"


@pytest.fixture
def events(rows):
    return rows(CLEAN_EVENTS, [
        {"event_key": "1", "user_id": "old", "item_id": "a", "weight": 1.0, "event_type": "view", "value": 9.0},
        # Again: one positive, of two kinds. The later of two ratings counts, whatever their order.
        {"event_key": "2", "user_id": "old", "item_id": "a", "weight": 5.0, **RATED, "value": 2.0, "event_ts": LATE},
        {"event_key": "7", "user_id": "old", "item_id": "a", "weight": 5.0, **RATED, "value": 4.0},
        {"event_key": "8", "user_id": "old", "item_id": "a", "weight": 0.0, "event_type": "dislike"},
        {"event_key": "3", "user_id": "old", "item_id": "b", "weight": 0.0},  # an impression: seen, not acted on
        {"event_key": "4", "user_id": "old", "item_id": "never a candidate", "weight": 1.0},
        {"event_key": "5", "user_id": "new", "item_id": "a", "weight": 1.0},
        {"event_key": "6", "user_id": "silent", "item_id": "a", "weight": 0.0},  # acts on neither side of weight 0
    ])


def build(candidates, done, fold=1, share=1.0):
    return examples(
        candidates, done, as_of=AS_OF, cut=CUT, fold=fold, negatives_share=share, seed=17,
    )


def test_who_counts_and_what_is_positive(rows, users, events):
    lists = [(user, item) for user in ("old", "silent", "new") for item in ("a", "b")]
    candidates = rows(CANDIDATES, [
        *({"list_kind": "user", "list_key": user, "item_id": item, "features": [7.0]} for user, item in lists),
        {"list_kind": "item", "list_key": "old", "item_id": "a"},  # a list that no ranker orders
    ])
    done = acted(users, events)
    frame = build(candidates, done)
    assert frame.columns == RANKER_EXAMPLES.names
    found = [
        tuple(row[name] for name in (
            "user_id", "item_id", "label", "kinds", "rating", "cut_date", "fold", "is_lesson", "features",
        ))
        for row in frame.orderBy("item_id").collect()
    ]
    assert found == [
        ("old", "a", 1.0, ["rating", "view"], 2.0, CUT, 1, True, [7.0]),
        ("old", "b", 0.0, [], None, CUT, 1, True, [7.0]),
    ]
    assert missed([done], found=1) == 1


def test_lessons_are_every_positive_and_a_stable_share_of_the_others(spark):
    given = ("list_kind", "list_key", "item_id", "features")
    candidates = spark.range(2000).select(
        *(F.lit(None).cast(c.type).alias(c.name) for c in CANDIDATES.columns if c.name not in given),
        F.lit("user").alias("list_kind"), F.lit("old").alias("list_key"), F.col("id").cast("string").alias("item_id"),
        F.array(F.lit(7.0).cast("float")).alias("features"),
    )
    done = spark.createDataFrame(
        [("old", {str(n): (["view"], None) for n in range(50)})], ACTED
    )
    kept = build(candidates, done, 0, 0.3).select("item_id", "label").collect()
    assert sum(row.label for row in kept) == 50
    assert 0.27 < (len(kept) - 50) / 1950 < 0.33
    # The same ones of a later fold, which keeps the others too.
    again = build(candidates.repartition(3), done, 2, 0.3).select("item_id", "is_lesson").collect()
    assert {row.item_id for row in again if row.is_lesson} == {row.item_id for row in kept} and len(again) == 2000


def test_of_a_single_cut_whole_users_are_for_validation(spark):
    users, items = [f"u{n}" for n in range(200)], [str(n) for n in range(20)]
    given = ("list_kind", "list_key", "item_id", "features")
    pairs = spark.createDataFrame([("user", u, i, [7.0]) for u in users for i in items], (
        "list_kind string, list_key string, item_id string, features array<float>"
    ))
    candidates = pairs.select(
        *(F.lit(None).cast(c.type).alias(c.name) for c in CANDIDATES.columns if c.name not in given), *given
    )
    done = spark.createDataFrame([(u, {"0": (["view"], None)}) for u in users], ACTED)
    found = build(candidates, done, None, 0.3).groupBy("user_id", "fold").agg(
        F.count("*").alias("rows"), F.sum("label").alias("positives")
    ).collect()
    assert len(found) == len(users) and all(row["positives"] == 1 for row in found)
    valid = [row["rows"] for row in found if row["fold"] == 1]
    train = [row["rows"] for row in found if row["fold"] == 0]
    assert 20 < len(valid) < 60 and set(valid) == {20} and 0.2 < (sum(train) / len(train) - 1) / 19 < 0.4


def test_positives_by_fold(rows):
    found = rows(RANKER_EXAMPLES, [{"fold": fold, "label": label} for fold, label in ((0, 1.0), (1, 0.0), (2, 1.0))])
    assert positives(found) == {0: 1, 2: 1}
    assert positives(found.limit(0)) == {}
