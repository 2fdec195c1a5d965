"""From candidates to files by the jobs themselves: what is refused, what is published, and what the books say."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from nightrec_jobs import audit, export, outcomes, published_topk, ranked_topk
from pyspark.sql import functions as F

from nightrec.errors import AuditRefused, UsageError
from nightrec.models import ranker_row
from nightrec.store import arrow
from nightrec.tables import (
    AUDIT_RESULTS,
    CANDIDATES,
    CLEAN_EVENTS,
    ITEM_PROFILES,
    LEDGER,
    NIGHT_MODELS,
    OUTCOMES,
    PUBLISHED_TOPK,
    RANKED_TOPK,
    RANKER_MODELS,
    SHORTFALLS,
    USER_PROFILES,
)

NIGHT = dt.date(2026, 3, 10)
TONIGHT = {"run_date": NIGHT}
ITEMS = ("a", "b", "c", "d")


def candidate(kind: str, key: str, item: str, rank: int, source: str = "popularity") -> dict[str, Any]:
    return {
        "run_date": NIGHT,
        "als_model": "als",
        "list_kind": kind,
        "list_key": key,
        "item_id": item,
        "source": source,
        f"{source}_rank": rank,
        f"{source}_score": 1 / rank,
    }


def others(key: str) -> list[str]:
    return [item for item in ITEMS if item != key]


@pytest.fixture
def ready(night, rows, monkeypatch):
    """A night up to its candidates. K = 2; the ranker is a stand-in that prefers the later id."""
    lists = night.config.lists.model_copy(update={"k": 2})
    night.config = night.config.model_copy(update={"lists": lists})
    put, replace = night.store.put, night.store.replace
    put(
        NIGHT_MODELS,
        [{**TONIGHT, "als_model": "als", "ranker_model": "ranker", "encoder": night.config.encoder.id}],
        TONIGHT,
    )
    ranker = {
        "as_of_date": NIGHT,
        "model_id": "ranker",
        "weights": "w",
        "weights_sha256": "0",
        "features": ["f"],
        "settings": [],
        "data_versions": [],
        "processes": 1,
        "best_epochs": {},
        "epochs": [],
        "choices": {},
        "calibration": [],
    }
    put(RANKER_MODELS, [ranker], {"as_of_date": NIGHT, "model_id": "ranker"})
    replace(ITEM_PROFILES, rows(ITEM_PROFILES, [{"item_id": item, "title": item.upper()} for item in ITEMS]), TONIGHT)
    replace(
        USER_PROFILES,
        rows(
            USER_PROFILES,
            [
                {"user_id": "old", "event_count": 2, "segment": "s"},
                {"user_id": "new", "segment": "s"},  # no history: the ladder
                {"user_id": "one", "event_count": 1, "segment": "s"},
                {"user_id": "barred", "blocked_items": [*ITEMS], "segment": "s"},  # only blocked items: no candidate
            ],
        ),
        TONIGHT,
    )
    everyone = [("everyone", "everyone"), ("segment", "s"), ("user", "new")]
    replace(
        CANDIDATES,
        rows(
            CANDIDATES,
            [
                *(candidate(kind, key, item, n) for kind, key in everyone for n, item in enumerate(ITEMS, 1)),
                *(candidate("item", key, item, n, "text") for key in ITEMS for n, item in enumerate(others(key), 1)),
                *(candidate("user", "old", item, n, "als") for n, item in enumerate("bcd", 1)),
                *(candidate("user", "one", item, n, "als") for n, item in enumerate("acd", 1)),
            ],
        ),
        {**TONIGHT, "als_model": "als"},
    )
    replace(
        CLEAN_EVENTS,
        rows(
            CLEAN_EVENTS,
            [
                {
                    "ingest_date": NIGHT,
                    "event_key": str(n),
                    "user_id": user,
                    "item_id": item,
                    "event_type": "view",
                    "weight": 1.0,
                    "context": {"list_id": "never served"} if n == 2 else {},
                }
                for n, (user, item) in enumerate([("old", "a"), ("one", "b"), ("old", "a")])
            ],
        ),
        {"ingest_date": NIGHT},
    )

    def stand_in(
        frame: Any, weights: str, sha256: str, features: list[str], settings: Any, values: Any, *_: Any
    ) -> Any:
        assert (weights, sha256, features) == (f"{night.config.paths.models}/w", "0", ["f"])
        return frame.withColumn("score", F.ascii("item_id") / 1000)

    monkeypatch.setattr(ranked_topk, "scored", stand_in)
    return night


def published(night: Any) -> dict[tuple[str, str], str]:
    rows = arrow(night.store.warehouse, PUBLISHED_TOPK).to_pylist()
    return {(row["list_kind"], row["list_key"]): "".join(item["item_id"] for item in row["items"]) for row in rows}


def failed(night: Any) -> set[str]:
    return {
        row["check_name"]
        for row in arrow(night.store.warehouse, AUDIT_RESULTS, TONIGHT).to_pylist()
        if not row["passed"]
    }


def test_from_candidates_to_files(ready, rows):
    night, warehouse = ready, ready.store.warehouse
    night.run("ranked_topk", ranked_topk.run)
    [short] = arrow(warehouse, SHORTFALLS, TONIGHT).to_pylist()
    assert (short["list_kind"], short["list_key"], short["wanted"], short["found"]) == ("user", "barred", 2, 0)
    with pytest.raises(AuditRefused, match="never audited"):
        night.run("published_topk", published_topk.run)
    assert night.run("export", export.run).lines == (("exported", "nothing new", 0),)

    night.run("audit", audit.run)
    books = night.run("published_topk", published_topk.run)
    assert books.rows("inserted") == books.rows("written") == 9
    assert published(night) == {
        ("user", "old"): "dc",
        ("user", "one"): "dc",
        ("user", "new"): "ab",
        ("segment", "s"): "ab",
        ("everyone", "everyone"): "ab",
        **{("item", key): "".join(others(key)[:2]) for key in ITEMS},
    }
    books = night.run("published_topk", published_topk.run)
    assert (books.rows("written"), books.rows("unchanged")) == (0, 9)
    assert night.run("export", export.run).lines == (("exported", "delete", 0), ("exported", "upsert", 9))
    assert night.run("outcomes", outcomes.run).rows("unknown_list") == 1
    assert arrow(warehouse, OUTCOMES).num_rows == 0

    # Ranking the night again makes its audit one of other rows, though they are equal.
    night.run("ranked_topk", ranked_topk.run)
    with pytest.raises(AuditRefused, match="written anew since its audit"):
        night.run("published_topk", published_topk.run)

    # A user blocks an item of the list after it was ranked: refused, recorded, booked, and yesterday's lists stay.
    served = night.store.version(PUBLISHED_TOPK)
    night.store.replace(
        USER_PROFILES,
        rows(
            USER_PROFILES,
            [
                {"user_id": key, "event_count": 1, "segment": "s", "blocked_items": ["d"] if key == "old" else []}
                for key in ("old", "new", "one", "barred")
            ],
        ),
        TONIGHT,
    )
    with pytest.raises(AuditRefused, match=r"(?s)stays.*not_blocked: found 1, limit 0; user old holds") as refusal:
        night.run("audit", audit.run)
    assert refusal.value.exit_code == 4
    assert failed(night) == {"not_blocked", "needless_shortfalls", "user_share"}
    books = {
        (row["fate"], row["reason"]) for row in arrow(warehouse, LEDGER, {**TONIGHT, "stage": "audit"}).to_pylist()
    }
    assert {("failed_stop", "not_blocked"), ("failed_warn", "needless_shortfalls")} <= books
    with pytest.raises(AuditRefused, match="not_blocked"):
        night.run("published_topk", published_topk.run)
    assert night.store.version(PUBLISHED_TOPK) == served


def test_a_ranker_that_was_never_trained(ready):
    with pytest.raises(UsageError, match="no ranker mine; trained: ranker"):
        ranker_row(ready.store.warehouse, "mine")


def test_a_list_counts_for_as_many_days_as_the_config_says(ready, rows):
    ready.run("ranked_topk", ranked_topk.run)
    [named, *_] = [
        row for row in arrow(ready.store.warehouse, RANKED_TOPK).to_pylist() if row["list_key"] == "old"
    ]
    for days_later, found in ((14, 1), (15, 0)):
        night = ready.at(NIGHT + dt.timedelta(days=days_later))
        event = {
            "event_key": f"{days_later} days later",
            "user_id": "old",
            "item_id": named["item_id"],
            "event_type": "click",
            "weight": 1.0,
            "context": {"list_id": named["list_id"]},
        }
        where = {"ingest_date": night.date}
        night.store.replace(CLEAN_EVENTS, rows(CLEAN_EVENTS, [event | where]), where)
        assert night.run("outcomes", outcomes.run).rows("unknown_list") == 1 - found
        assert arrow(night.store.warehouse, OUTCOMES, {"run_date": night.date}).num_rows == found
