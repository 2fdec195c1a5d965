"""Published lists against the days after the night, on a raw log whose outcome is known."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from nightrec.hindsight import quality
from nightrec.night import Night
from nightrec.tables import CANDIDATES, CLEAN_EVENTS, PUBLISHED_TOPK

MODEL = "als-test"


def arrives(night: Night, days_after: int, *events: tuple[str, str]) -> None:
    """Views that arrive some days after the night, and a line that says nothing."""
    day = night.date + dt.timedelta(days=days_after)
    folder = Path(night.config.paths.raw) / "events" / f"ingest_date={day}"
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"user_id": user, "item_id": item, "event_type": "view", "event_ts": f"{day}T10:00:00Z"})
        for user, item in events
    ]
    (folder / "part-0.jsonl").write_text("\n".join([*lines, "broken"]) + "\n", encoding="utf-8")


def test_lists_are_held_against_what_came_later(night: Night, rows: Any) -> None:
    past = Night(night.spark, night.config, night.date, als_model=MODEL, ranker_model="ranker-test", store=night.store)
    night.store.replace(
        CLEAN_EVENTS,
        rows(CLEAN_EVENTS, [{"ingest_date": night.date, "user_id": "u", "item_id": "seen", "weight": 1.0,
                             "event_type": "view"}]),
        {"ingest_date": night.date},
    )
    places = [{"rank": rank, "item_id": item, "score": 1.0 / rank, "source": "als", "reason": "-"}
              for rank, item in ((1, "a"), (2, "b"))]
    lists = [{"list_kind": kind, "list_key": key, "list_id": key, "items": places}
             for kind, key in (("user", "u"), ("user", "v"), ("user", "idle"), ("everyone", "everyone"))]
    night.store.merge(PUBLISHED_TOPK, rows(PUBLISHED_TOPK, lists), "list_id")
    popular = [{"run_date": night.date, "als_model": MODEL, "list_kind": "user", "list_key": user, "item_id": "b",
                "popularity_rank": 1} for user in ("u", "v", "idle")]
    night.store.replace(CANDIDATES, rows(CANDIDATES, popular), {"run_date": night.date, "als_model": MODEL})
    (Path(night.config.paths.raw) / "events").mkdir(parents=True)
    assert quality(past) is None  # no later day has arrived

    horizon = night.config.ranker.horizon
    # u does b (place 2 of ours, 1 of the popular) and sees an old item again; v does a; `late` has no list.
    arrives(night, 1, ("u", "b"), ("u", "b"), ("u", "seen"), ("late", "a"))
    arrives(night, horizon, ("v", "a"))
    arrives(night, horizon + 1, ("idle", "a"))  # after the horizon
    found = quality(past)
    assert found is not None
    assert (found.users, found.days) == (2, 2)
    assert found.ndcg == pytest.approx((0.6309298 + 1) / 2)
    assert (found.recall, found.popular_ndcg, found.popular_recall) == (1.0, 0.5, 0.5)

    # Tomorrow's file is still being written: that is no matter of this night's.
    whole = gzip.compress(b'{"user_id": "u", "item_id": "b", "event_type": "view", "event_ts": "2026-03-11"}\n' * 99)
    folder = Path(night.config.paths.raw) / "events" / f"ingest_date={night.date + dt.timedelta(days=1)}"
    (folder / "part-1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert quality(past) is None
