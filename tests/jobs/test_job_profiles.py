"""The two profile jobs on a raw root: what arrived later changes nothing, what is unknown is booked."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

from nightrec_jobs import item_profiles, user_profiles

from nightrec.night import Night
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES, USER_PROFILES

NIGHT = dt.date(2026, 3, 10)
LATER = dt.date(2026, 3, 11)


def snapshot(root: str, kind: str, day: dt.date, lines: list[dict[str, Any]]) -> None:
    folder = Path(root) / kind / f"ingest_date={day}"
    folder.mkdir(parents=True)
    (folder / "part.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def event(arrived: dt.date, user: str, item: str) -> dict[str, Any]:
    happened = dt.datetime(2026, 3, 9, 12, tzinfo=dt.UTC)
    return {
        "ingest_date": arrived,
        "event_key": f"{arrived}{user}{item}",
        "user_id": user,
        "item_id": item,
        "weight": 1.0,
        "event_type": "view",
        "event_ts": happened,
        "event_date": happened.date(),
    }


def test_profiles_of_a_night_rest_on_what_had_arrived(night: Night, rows: Any) -> None:
    root, warehouse = night.config.paths.raw, night.config.paths.warehouse
    snapshot(
        root,
        "items",
        NIGHT,
        [{"item_id": "a", "title": "Early"}, {"item_id": "b", "title": "B", "categories": ["Art"]}, {"title": "none"}],
    )
    snapshot(root, "users", NIGHT, [{"user_id": "u", "blocked_items": ["b"]}])
    # `gone` is not in the catalogue.
    early = [event(NIGHT, "u", "b"), event(NIGHT, "u", "gone")]
    night.store.replace(CLEAN_EVENTS, rows(CLEAN_EVENTS, early), {"ingest_date": NIGHT})

    def both() -> list[list[dict[str, Any]]]:
        books = night.run("item_profiles", item_profiles.run)
        assert (books.rows("written"), books.rows("unknown_item"), books.rows("rejected")) == (3, 1, 1)
        assert night.run("user_profiles", user_profiles.run).rows("written") == 1
        return [
            arrow(warehouse, table, {"run_date": NIGHT}).sort_by(table.key[1]).to_pylist()
            for table in (ITEM_PROFILES, USER_PROFILES)
        ]

    before = both()
    assert [row["in_catalogue"] for row in before[0]] == [True, True, False]
    assert (before[1][0]["recent_items"], before[1][0]["blocked_items"]) == (["b", "gone"], ["b"])
    # A day later other snapshots arrive, and events that happened before the night: none of it is known on the night.
    snapshot(root, "items", LATER, [{"item_id": "gone", "title": "Late"}])
    snapshot(root, "users", LATER, [{"user_id": "u", "blocked_items": []}, {"user_id": "w"}])
    late = [event(LATER, "w", "b"), event(LATER, "u", "a")]
    night.store.replace(CLEAN_EVENTS, rows(CLEAN_EVENTS, late), {"ingest_date": LATER})
    assert both() == before
