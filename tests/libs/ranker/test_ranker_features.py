"""Every feature worked out by hand, for lists that hold each edge case once."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest
from pyspark.sql import DataFrame

from nightrec.features import FEATURES, features
from nightrec.tables import CANDIDATES, ITEM_PROFILES, SOURCES, USER_PROFILES

DAY = dt.date(2026, 3, 10)


def at(hour: int, day: int = 10) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, tzinfo=dt.UTC)


@pytest.fixture
def candidates(rows) -> DataFrame:
    return rows(CANDIDATES, [
        # two sources; the list's best by als
        {"list_kind": "user", "list_key": "u1", "item_id": "a", "als_score": 0.8, "als_rank": 1,
         "text_score": 0.5, "text_rank": 2},
        # half of the best
        {"list_kind": "user", "list_key": "u1", "item_id": "b", "als_score": 0.4, "als_rank": 2},
        # far below 0: kept within -1
        {"list_kind": "user", "list_key": "u1", "item_id": "c", "als_score": -4.0, "als_rank": 3,
         "text_score": 1.0, "text_rank": 1},
        # another list has its own largest score; this one is not above 0, so it has no scale
        {"list_kind": "user", "list_key": "u2", "item_id": "a", "als_score": -0.5, "als_rank": 1},
        # NaN must not become the list's largest
        {"list_kind": "user", "list_key": "u2", "item_id": "b", "text_score": float("nan"), "text_rank": 1},
        {"list_kind": "user", "list_key": "u2", "item_id": "c", "text_score": 0.25, "text_rank": 2},
        # neither the item nor the user has a profile
        {"list_kind": "user", "list_key": "ghost", "item_id": "ghost", "popularity_score": 2.0, "popularity_rank": 4},
        # not a user's list, though its key is a user's
        {"list_kind": "item", "list_key": "u1", "item_id": "b", "als_score": 9.0, "als_rank": 1},
    ])


@pytest.fixture
def items(rows) -> DataFrame:
    return rows(ITEM_PROFILES, [
        # two categories, of which the user's larger share counts
        {"run_date": DAY, "item_id": "a", "categories": ["x", "y"], "popularity_share": 1.0, "user_count": 8,
         "recent_user_count": 8, "first_event_ts": at(23, day=3)},
        # ties with c in all users; first seen today: age 0
        {"run_date": DAY, "item_id": "b", "categories": ["z"], "popularity_share": 0.25, "user_count": 3,
         "recent_user_count": 2, "first_event_ts": at(0)},
        # never acted on: no first event, no categories
        {"run_date": DAY, "item_id": "c", "user_count": 3, "recent_user_count": 0},
    ])


@pytest.fixture
def users(rows) -> DataFrame:
    return rows(USER_PROFILES, [
        {"run_date": DAY, "user_id": "u1", "event_count": 9, "item_count": 4, "days_since_last": 1,
         "category_shares": {"x": 0.25, "y": 0.5}},
        # known, but without an event
        {"run_date": DAY, "user_id": "u2"},
    ])


def by_key(frame: DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    return {
        (row.list_key, row.item_id): dict(zip(FEATURES, row.features, strict=True))
        for row in frame.select("list_key", "item_id", "features").collect()
    }


def test_every_feature_by_hand(candidates, items, users):
    found = by_key(features(candidates, items, users))
    assert len(found) == 7  # the item's list is left out

    expected = dict.fromkeys(FEATURES, 0.0) | {
        "als_nominated": 1, "als_score_share": 1, "als_reciprocal_rank": 1,
        "text_nominated": 1, "text_score_share": 0.5, "text_reciprocal_rank": 0.5,
        "popularity_share": 1, "user_count_percentile": 1, "recent_user_count_percentile": 1,
        "item_age_log_days": math.log1p(7), "item_trend_log": math.log(9 / 3),
        "user_event_count_log": math.log(10), "user_days_since_last_log": math.log(2),
        "user_item_count_log": math.log(5), "category_share": 0.5,
    }
    assert found["u1", "a"] == pytest.approx(expected, abs=1e-6)
    b, c = found["u1", "b"], found["u1", "c"]
    assert [b[f"als_{name}"] for name in ("nominated", "score_share", "reciprocal_rank")] == [1, 0.5, 0.5]
    assert [b[f"text_{name}"] for name in ("nominated", "score_share", "reciprocal_rank")] == [0, 0, 0]
    assert c["als_score_share"] == -1
    # b and c tie at the bottom of all users; b is the middle one of recent users
    assert (b["user_count_percentile"], c["user_count_percentile"], b["recent_user_count_percentile"]) == (0, 0, 0.5)
    assert (b["item_age_log_days"], c["item_age_log_days"]) == (0, 0)
    assert (b["item_trend_log"], c["item_trend_log"]) == pytest.approx((math.log(3 / 2), math.log(1 / 2)))
    assert (b["category_share"], c["category_share"]) == (0, 0)
    assert (found["u2", "a"]["als_nominated"], found["u2", "a"]["als_score_share"]) == (1, 0)
    assert [found["u2", item]["text_score_share"] for item in "bc"] == [0, 1]
    assert all(found["u2", "a"][f"user_{name}_log"] == 0 for name in ("event_count", "days_since_last", "item_count"))
    ghost = {name: value for name, value in found["ghost", "ghost"].items() if value}
    assert ghost == {"popularity_nominated": 1, "popularity_score_share": 1, "popularity_reciprocal_rank": 0.25}
    assert np.isfinite([list(row.values()) for row in found.values()]).all()


def test_the_candidates_columns_are_kept_and_nothing_is_none_of_nothing(candidates, items, users):
    frame = features(candidates.withColumn("label", candidates["als_rank"]).limit(0), items, users)
    assert frame.columns == [*CANDIDATES.names, "label", "features"]
    assert frame.schema["features"].dataType.simpleString() == "array<float>"
    assert frame.collect() == []


def test_names_are_unique_and_cover_every_source():
    assert len(set(FEATURES)) == len(FEATURES)
    assert all(f"{source}_nominated" in FEATURES for source in SOURCES)
