"""Items as of a night: counts, windows, the catalogue, availability and the text."""

import datetime as dt
import hashlib
from typing import Any

from nightrec.profiles.items import item_profiles
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES

NIGHT = dt.date(2026, 3, 10)
CATALOGUE = (
    "item_id string, title string, description string, categories array<string>, tags array<string>, "
    "attributes map<string,string>, available_from timestamp, available_until timestamp"
)


def at(day: int, hour: int = 12, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, minute, tzinfo=dt.UTC)


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


def listing(item: str, title: str | None = "A title", **more: Any) -> tuple[Any, ...]:
    names = ("description", "categories", "tags", "attributes", "available_from", "available_until")
    return (item, title, *(more.get(name) for name in names))


def by_id(frame: Any) -> dict[str, dict[str, Any]]:
    found = ITEM_PROFILES.checked(frame, "test").toArrow().to_pylist()
    assert len({row["item_id"] for row in found}) == len(found)
    return {row["item_id"]: row for row in found}


def test_counts_windows_and_nothing_later(rows: Any, spark: Any) -> None:
    events = rows(
        CLEAN_EVENTS,
        [
            event("u1", "a", at(10, 23, 59)),  # the last minute of the night
            event("u1", "a", at(9)),  # the same user again: an event more, not a user more
            event("u2", "a", at(4, 0, 0)),  # the first moment of the 7 days
            event("u3", "a", at(3, 23, 59)),  # the last minute before them: counts, but not as recent
            event("u4", "a", at(8), weight=0.0),  # seen, not liked: no sign of interest
            event("u5", "a", at(11, 0, 0)),  # a fast clock: dated after the night, so it changes nothing
            event("u1", "b", at(8)),  # one recent user where a has two
            event("u1", "shown", at(8), weight=0.0),  # known from the events, without a count
            event("u5", "tomorrow", at(11)),  # an item known only from after the night
        ],
    )
    found = by_id(item_profiles(None, events, NIGHT, recent_days=7))
    assert set(found) == {"a", "b", "shown"}
    counts = {
        key: tuple(row[n] for n in ("event_count", "user_count", "recent_user_count", "popularity_share"))
        for key, row in found.items()
    }
    assert counts == {"a": (4, 3, 2, 1.0), "b": (1, 1, 1, 0.5), "shown": (0, 0, 0, 0.0)}
    # Users by the age of their last event: u1 0 days, u2 6, u3 7; u1 alone came back, a day later.
    assert found["a"]["window_user_counts"] == [1, 1, 2, 3, 3, 3] and found["shown"]["window_user_counts"] == [0] * 6
    # The night is a Tuesday: u1 on it and on Monday, u2 on a Wednesday, u3 on a Tuesday.
    assert found["a"]["weekday_user_days"] == [1, 2, 1, 0, 0, 0, 0] and found["shown"]["weekday_user_days"] == [0] * 7
    assert (found["a"]["repeat_user_count"], found["a"]["repeat_gap_days"]) == (1, 1.0)
    assert (found["b"]["repeat_user_count"], found["b"]["repeat_gap_days"]) == (0, None)
    assert (found["a"]["first_event_ts"], found["a"]["last_event_ts"]) == (at(3, 23, 59), at(10, 23, 59))
    assert found["shown"]["first_event_ts"] is None
    # Without a snapshot every item of the events may be shown, under its id.
    assert all(row["in_catalogue"] and row["is_available"] for row in found.values())
    assert (found["a"]["title"], found["a"]["text"], found["a"]["categories"]) == ("a", "a", [])


def test_days_of_the_week(rows: Any, spark: Any) -> None:
    def days_ago(user: str, days: int, hour: int = 12, **more: Any) -> dict[str, Any]:
        return event(user, "a", at(10, hour) - dt.timedelta(days=days), **more)

    events = rows(
        CLEAN_EVENTS,
        [
            *(days_ago("u1", 0, hour) for hour in (1, 2, 3)),  # one day, however often
            days_ago("u2", 0),  # another user's
            days_ago("u1", 49),  # that Tuesday of eight
            days_ago("u1", 55),  # the first of 56 days, a Wednesday
            days_ago("u1", 56),  # a Tuesday too long ago
            days_ago("u3", 3, weight=0.0),
            days_ago("u3", 2),  # a Sunday
            days_ago("u3", 2, hour=0),
            days_ago("u1", -1),  # after the night
        ],
    )
    found = by_id(item_profiles(spark.createDataFrame([listing("a"), listing("b")], CATALOGUE), events, NIGHT, 7))
    assert found["a"]["weekday_user_days"] == [0, 3, 1, 0, 0, 0, 1] and found["b"]["weekday_user_days"] == [0] * 7
    # Every day of 56 is one of eight of its weekday, whatever the weekday of the night.
    every = rows(CLEAN_EVENTS, [days_ago("u1", days) for days in range(60)])
    for earlier in range(2):
        (row,) = by_id(item_profiles(None, every, NIGHT - dt.timedelta(days=earlier), 7)).values()
        assert row["weekday_user_days"] == [8] * 7


def test_catalogue_availability_and_text(rows: Any, spark: Any) -> None:
    catalogue = spark.createDataFrame(
        [
            # Everything said, untidily; the description is cut after 200 characters.
            listing(
                "full",
                "  Red \n shoes ",
                description="word " * 60,
                categories=["Shoes", None, " ", "Boots", "Shoes"],
                tags=["new"],
                attributes={"size": "41"},
            ),
            listing("blank", " "),  # no title: the id stands for it
            listing("ends", available_until=at(11, 0, 0)),  # ends on the day the lists are read: still there
            listing("ended", available_until=at(10, 23, 59)),  # ended the night before
            listing("starts", available_from=at(11, 23, 0)),  # starts on that day
            listing("later", available_from=at(12, 0, 0)),  # starts the day after
        ],
        CATALOGUE,
    )
    events = rows(
        CLEAN_EVENTS,
        [
            event("u1", "full", at(9)),
            event("u1", "gone", at(9)),  # used, but no longer in the catalogue
            event("u2", "gone", at(9)),
        ],
    )
    found = by_id(item_profiles(catalogue, events, NIGHT, recent_days=7))
    flags = {key: (row["in_catalogue"], row["is_available"]) for key, row in found.items()}
    assert flags == {
        "full": (True, True),
        "blank": (True, True),
        "ends": (True, True),
        "ended": (True, False),
        "starts": (True, True),
        "later": (True, False),
        "gone": (False, False),
    }
    full = found["full"]
    assert (full["title"], full["categories"], full["tags"]) == ("Red shoes", ["Shoes", "Boots"], ["new"])
    # Categories sorted: another order in the catalogue is no new text.
    assert full["text"] == "Red shoes. Boots, Shoes. new. " + " ".join(["word"] * 40)
    assert full["text_hash"] == hashlib.sha256(full["text"].encode()).hexdigest()
    assert (full["popularity_share"], found["gone"]["popularity_share"], found["ends"]["popularity_share"]) == (
        0.5,
        1.0,
        0.0,
    )
    assert (found["blank"]["text"], found["ends"]["event_count"]) == ("blank", 0)


def test_no_events(rows: Any, spark: Any) -> None:
    catalogue = spark.createDataFrame([listing("a")], CATALOGUE)
    found = by_id(item_profiles(catalogue, rows(CLEAN_EVENTS, []), NIGHT, recent_days=7))
    assert [(key, row["popularity_share"], row["user_count"]) for key, row in found.items()] == [("a", 0.0, 0)]
