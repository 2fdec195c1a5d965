"""Users as of a night: recent items, affinities, segments, eligibility and the text."""

import datetime as dt
from typing import Any

from nightrec.profiles.users import user_profiles
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES, USER_PROFILES

NIGHT = dt.date(2026, 3, 10)
SNAPSHOT = "user_id string, attributes map<string,string>, blocked_items array<string>"


def at(day: int, hour: int = 12, minute: int = 0, month: int = 3) -> dt.datetime:
    return dt.datetime(2026, month, day, hour, minute, tzinfo=dt.UTC)


def event(user: str, item: str, when: dt.datetime, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "user_id": user,
        "item_id": item,
        "event_ts": when,
        "event_date": when.date(),
        "weight": weight,
        "event_type": "view",
        **more,
    }


def profiles(snapshot: Any, events: Any, items: Any, **more: Any) -> dict[str, dict[str, Any]]:
    settings = {"recent_days": 7, "recent_items": 3, "segment_attribute": None, "eligible_days": 30}
    frame = user_profiles(snapshot, events, items, NIGHT, **{**settings, **more})
    found = USER_PROFILES.checked(frame, "test").toArrow().to_pylist()
    assert len({row["user_id"] for row in found}) == len(found)
    return {row["user_id"]: row for row in found}


def test_activity_affinities_and_text(rows: Any, spark: Any) -> None:
    items = rows(
        ITEM_PROFILES,
        [
            {"item_id": "a", "categories": ["War", "Drama"]},  # half an event to each
            {"item_id": "b", "categories": ["Drama", "Comedy", "Art"]},  # a third to each
            {"item_id": "c", "categories": []},  # no category: its events are part of the whole, of no share
            {"item_id": "d", "categories": ["Art"]},
        ],
    )
    events = rows(
        CLEAN_EVENTS,
        [
            event("u", "a", at(4, 0, 0), text=" loved \n it "),  # the first moment of the 7 days
            event("u", "b", at(10, 23, 59), text="x" * 200),  # the night's last minute; a remark is cut at 120
            event("u", "c", at(3, 23, 59)),  # the last minute before the 7 days
            event("u", "c", at(9)),  # again: one item, which now is the second newest, with d
            event("u", "d", at(9)),  # the same time as c: the tie goes to the smaller id
            event("u", "e", at(8), weight=0.0, text="hated it"),  # no sign of interest, nor are its words
            event("u", "f", at(11, 0, 0), text="tomorrow"),  # dated after the night: changes nothing
            event("ghost", "a", at(11)),  # a user known only from after the night
            event("tie", "a", at(9)),  # War and Drama have equal shares: the favourite is the first by name
            event("saw", "a", at(9), weight=0.0),  # came by without a sign of interest
        ],
    )
    found = profiles(None, events, items)
    assert set(found) == {"u", "tie", "saw"}
    user = found["u"]
    assert [user[n] for n in ("event_count", "item_count", "recent_event_count", "days_since_last")] == [5, 4, 4, 0]
    assert user["recent_items"] == ["b", "c", "d"]  # a is the fourth: cut
    # Of five events: Art 1/3 + 1, Drama 1/2 + 1/3, War 1/2, Comedy 1/3; c's two have no category.
    shares = dict(user["category_shares"])
    assert list(shares) == ["Art", "Drama", "War", "Comedy"]
    assert [round(share * 30, 9) for share in shares.values()] == [8, 5, 3, 2]
    assert user["text"] == "likes Art, Drama, War. wrote: " + "x" * 120 + ". loved it"
    assert (found["tie"]["segment"], found["tie"]["text"]) == ("Drama", "likes Drama, War")
    assert (found["saw"]["is_eligible"], found["saw"]["text"], found["saw"]["text_hash"]) == (True, None, None)
    assert (found["saw"]["recent_items"], found["saw"]["last_event_ts"], found["saw"]["segment"]) == ([], None, None)


def test_snapshot_segment_and_eligibility(rows: Any, spark: Any) -> None:
    snapshot = spark.createDataFrame(
        [
            ("new", {"job": " nurse ", "age": "30", "note": ""}, ["x", None, "x"]),  # in the snapshot, never active
            ("old", {"age": "50"}, None),  # last seen 31 days ago
            ("both", {"job": "cook"}, None),
        ],
        SNAPSHOT,
    )
    items = rows(ITEM_PROFILES, [{"item_id": "a", "categories": ["Art"]}])
    events = rows(
        CLEAN_EVENTS,
        [
            event("old", "a", at(7, month=2)),
            event("edge", "a", at(8, month=2)),  # 30 days: still eligible; not in the snapshot
            event("both", "a", at(9)),
        ],
    )
    found = profiles(snapshot, events, items, segment_attribute="job")
    assert {key: row["is_eligible"] for key, row in found.items()} == {
        "new": True,
        "old": False,
        "edge": True,
        "both": True,
    }
    # The attribute where it is known, else the favourite category.
    assert {key: row["segment"] for key, row in found.items()} == {
        "new": "nurse",
        "old": "Art",
        "edge": "Art",
        "both": "cook",
    }
    new = found["new"]
    assert (new["blocked_items"], found["old"]["blocked_items"]) == (["x"], [])
    assert (new["event_count"], new["days_since_last"], new["category_shares"]) == (0, None, [])
    # Attributes by name; what has no value is not said.
    assert (new["text"], found["both"]["text"]) == ("age 30, job nurse", "job cook. likes Art")
    assert found["edge"]["attributes"] is None


def test_no_users(rows: Any) -> None:
    assert profiles(None, rows(CLEAN_EVENTS, []), rows(ITEM_PROFILES, [])) == {}
