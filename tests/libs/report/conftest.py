"""Two nights of a tiny deployment whose lists and books are known row by row."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyspark.sql import SparkSession

from nightrec.config import Config, Paths, Spark
from nightrec.store import Store
from nightrec.tables import (
    AUDIT_RESULTS,
    CHAMPIONS,
    CLEAN_EVENTS,
    ITEM_PROFILES,
    LEDGER,
    PUBLISHED_TOPK,
    RANKED_TOPK,
    SHORTFALLS,
    USER_PROFILES,
    WINDOWS,
)

BEFORE, TONIGHT = dt.date(2026, 3, 9), dt.date(2026, 3, 10)
TITLES = {"a": "Alien [1979]", "b": "Brazil", "c": "Charade", "d": "Duck Soup", "雪": "雪国"}


def event(day: dt.date, hour: int, user: str, item: str, key: str) -> dict[str, Any]:
    stamp = dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC)
    return {
        "ingest_date": day,
        "event_key": key,
        "user_id": user,
        "item_id": item,
        "event_type": "rating",
        "event_ts": stamp,
        "event_date": day,
        "value": 4.0,
        "weight": 1.0,
        "is_late": False,
    }


def ranked(night: dt.date, kind: str, key: str, list_id: str, items: str) -> list[dict[str, Any]]:
    return [
        {
            "run_date": night,
            "list_kind": kind,
            "list_key": key,
            "list_id": list_id,
            "rank": place + 1,
            "item_id": item,
            "score": 1.0 / (place + 1),
            "source": "als",
            "reason": f"because of [{item}]",
        }
        for place, item in enumerate(items)
    ]


def published(rows: list[dict[str, Any]], changed: dt.date) -> dict[str, Any]:
    items = [{name: row[name] for name in ("rank", "item_id", "score", "source", "reason")} for row in rows]
    head = {name: rows[0][name] for name in ("list_kind", "list_key", "list_id")}
    return {**head, "items": items, "changed_date": changed}


LISTS = {
    # Ann's list: b stays first, c and d change places, 雪 comes, a goes
    BEFORE: ranked(BEFORE, "user", "ann", "l1", "bcda") + ranked(BEFORE, "everyone", "everyone", "e1", "ab"),
    TONIGHT: ranked(TONIGHT, "user", "ann", "l2", "bdc雪")
    + ranked(TONIGHT, "user", "o'neil \\ x", "l3", "ab")
    + ranked(TONIGHT, "everyone", "everyone", "e1", "ab"),
}
BOOKS = [
    (BEFORE, "clean_events", "read", "", 20),
    (BEFORE, "clean_events", "accepted", "", 13),
    (BEFORE, "clean_events", "late", "", 1),
    (BEFORE, "clean_events", "duplicate", "", 2),
    (BEFORE, "clean_events", "rejected", "broken_line", 3),
    (BEFORE, "clean_events", "rejected", "robot", 1),
    (TONIGHT, "clean_events", "read", "", 12),
    (TONIGHT, "clean_events", "accepted", "", 12),
    (TONIGHT, "published_topk", "inserted", "lists", 1),
    (TONIGHT, "published_topk", "updated", "lists", 1),
    (TONIGHT, "published_topk", "unchanged", "lists", 1),
    (TONIGHT, "published_topk", "written", "published_topk", 2),
]


@pytest.fixture(scope="session")
def deployment(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("deployment")
    config = Config(paths=Paths(**{name: str(root / name) for name in Paths.model_fields}), spark=Spark())
    store = Store(spark, config.paths.warehouse, run_id="test")
    # twelve events of Ann's on the night, of which two in the same second; one of a later night, which no page may show
    late = dt.date(2026, 3, 11)
    events = [event(TONIGHT, hour, "ann", "abcd"[hour % 4], f"k{hour}") for hour in range(11)]
    events += [event(TONIGHT, 10, "ann", "a", "tie"), event(late, 1, "ann", "a", "later")]
    events += [event(BEFORE, 1, "böb", "a", "b1")]
    store.put(CLEAN_EVENTS, events, {"ingest_date": [BEFORE, TONIGHT, late]})
    empty: dict[str, Any] = {
        "categories": [],
        "tags": [],
        "in_catalogue": True,
        "is_available": True,
        "text": "",
        "text_hash": "",
    }
    counts = {
        "event_count": 0, "user_count": 0, "recent_user_count": 0, "popularity_share": 0.0,
        "window_user_counts": [0] * len(WINDOWS), "weekday_user_days": [0] * 7, "repeat_user_count": 0,
    }  # fmt: skip
    profiles = [
        {"run_date": TONIGHT, "item_id": item, "title": title} | empty | counts for item, title in TITLES.items()
    ]
    store.put(ITEM_PROFILES, profiles, {"run_date": TONIGHT})
    user = {
        "blocked_items": [],
        "event_count": 0,
        "item_count": 0,
        "recent_event_count": 0,
        "recent_items": [],
        "category_shares": {},
    }
    eligible = {"ann": True, "böb": True, "cy": False, "o'neil \\ x": True}
    people = [{"run_date": TONIGHT, "user_id": name, "is_eligible": fit} | user for name, fit in eligible.items()]
    store.put(USER_PROFILES, people, {"run_date": TONIGHT})
    store.put(RANKED_TOPK, LISTS[BEFORE] + LISTS[TONIGHT], {"run_date": [BEFORE, TONIGHT]})
    short = {
        "run_date": TONIGHT,
        "list_kind": "user",
        "list_key": "böb",
        "wanted": 4,
        "found": 0,
        "cause": "all blocked",
    }
    store.put(SHORTFALLS, [short], {"run_date": TONIGHT})
    tonight = LISTS[TONIGHT]
    served = [published(tonight[:4], TONIGHT), published(tonight[4:6], TONIGHT), published(tonight[6:], BEFORE)]
    store.put(PUBLISHED_TOPK, served, {})
    check = {"run_date": TONIGHT, "found": 0.0, "limit": 0.0, "detail": "-", "passed": True}
    checks = [
        check | {"check_name": "ranks", "severity": "stop"},
        check | {"check_name": "volume", "severity": "warn", "passed": False, "detail": "half of it"},
        check | {"check_name": "content", "severity": "note"},
    ]
    store.put(AUDIT_RESULTS, checks, {"run_date": TONIGHT})
    reason = {"verdict": "unjudged", "reason": "One pair of models serves unjudged.", "barred": []}
    pair = {"als_model": "als", "ranker_model": "ranker"}
    store.put(CHAMPIONS, [{"run_date": TONIGHT} | pair | reason], {"run_date": TONIGHT})
    names = ("run_date", "stage", "fate", "reason", "row_count")
    ledger = [dict(zip(names, line, strict=True)) | {"run_id": "r"} for line in BOOKS]
    store.put(LEDGER, ledger, {"run_date": [BEFORE, TONIGHT], "stage": ["clean_events", "published_topk"]})
    store.close()
    return config
