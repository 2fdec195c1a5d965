"""What the log shows, counted as by hand; and what follows from it for settings that nobody has set."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from nightrec import adaptive
from nightrec.adaptive import FORETOLD, ITEMS, LATER, LIKENESS, LOG_DAYS, PAIRS, REPEATED, RETURNED, SHOWN
from nightrec.config import Candidates, Config, Events, Profiles, Ranker
from nightrec.events import evidence
from nightrec.tables import CLEAN_EVENTS

DAY = dt.date(2026, 3, 1)


def event(user: str, item: str, day: int, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    day_ = {"event_date": DAY + dt.timedelta(days=day), "event_type": "view"}
    return {"user_id": user, "item_id": item, "weight": weight, **day_, **more}


def test_repeats_are_counted_as_by_hand(rows: Any) -> None:
    draw = random.Random(5)
    events = [event(f"u{draw.randrange(5)}", f"i{draw.randrange(6)}", draw.randrange(40)) for _ in range(120)]
    # The first and the last day; two on one day are no repeat of each other; impressions say nothing, nor when.
    events += [event("one", "x", 0), event("one", "y", 39), event("one", "y", 39), event("one", "x", 60, weight=0.0)]
    frame = rows(CLEAN_EVENTS, events)
    counted = [one for one in events if one["weight"]]
    begun: dict[tuple[str, str], dt.date] = {}
    for one in counted:
        pair = one["user_id"], one["item_id"]
        begun[pair] = min(one["event_date"], begun.get(pair, one["event_date"]))
    later = [one for one in counted if (one["event_date"] - DAY).days > 19.5]
    again = [one for one in later if one["event_date"] > begun[one["user_id"], one["item_id"]]]
    days = evidence.span(frame)
    assert days == (DAY, DAY + dt.timedelta(days=39))
    assert evidence.repeats(frame, *days) == (len(later), len(again)) and 0 < len(again) < len(later)
    nobody = frame.where("weight = 0")
    assert evidence.span(nobody) is None and evidence.repeats(nobody, *days) == (0, 0)
    assert evidence.returning(nobody, days[1], (1, 7)) == [0, 0]
    assert evidence.foretold(nobody, *days, (1, 7), 5) == [0, 0] and evidence.taken_up(nobody).num_rows == 0


def test_who_came_back_and_how_things_were_rated(rows: Any) -> None:
    last = DAY + dt.timedelta(days=20)
    frame = rows(CLEAN_EVENTS, [
        event("old", "x", 3), event("old", "x", 10),  # not since
        event("far", "x", 6), event("far", "x", 7),  # of fourteen days the last before, and the first
        event("week", "x", 13), event("week", "x", 14),  # the seven days up to the last begin at the 14th
        event("new", "x", 19), event("new", "y", 20),  # a day apart
        event("once", "x", 20, event_type="rating", value=1.0),
        event("both", "x", 0, event_type="rating", value=3.0), event("both", "x", 20, event_type="rating", value=5.0),
        event("seen", "x", 0, weight=0.0), event("seen", "x", 20),  # an impression is no visit
    ])  # fmt: skip
    # Before the last day and in it new and both; of seven days week and both; of fourteen old, far and both.
    assert evidence.returning(frame, last, (1, 7, 14)) == [2, 2, 3]
    assert evidence.ratings(frame) == (3, 1)


def test_windows_are_judged_by_what_came_after(rows: Any) -> None:
    """60 items a week, of which ten are taken often: the week before says what the next is like, four weeks do not."""
    draw, events = random.Random(7), []
    for week in range(12):
        for day in range(7):
            hot = draw.sample([f"w{week // 2}-{n}" for n in range(60)], 30)
            events += [event(f"u{n}", item, 7 * week + day) for item in hot for n in range(3)]
    frame = rows(CLEAN_EVENTS, events)
    first, last = DAY, DAY + dt.timedelta(days=83)
    windows = (3, 7, 28)
    expected = [0] * len(windows)
    by_day: dict[int, Counter[str]] = {}
    for one in {(e["user_id"], e["item_id"], (e["event_date"] - DAY).days) for e in events}:
        by_day.setdefault(one[2], Counter())[one[1]] += 1
    for end in (76, 69, 62, 55):
        ever = sum((by_day[day] for day in range(end + 1)), Counter())
        after = sum((by_day[day] for day in range(end + 1, end + 8)), Counter())
        for number, window in enumerate(windows):
            recent = sum((by_day[day] for day in range(end - window + 1, end + 1)), Counter())
            top = sorted(sorted(set(ever) | set(after)), key=lambda item: (-recent[item], -ever[item]))[:50]
            expected[number] += sum(after[item] for item in top)
    assert evidence.foretold(frame, first, last, windows, 7) == expected and expected[1] > expected[2]
    # A log too short to have a later half.
    assert evidence.foretold(frame, last - dt.timedelta(days=5), last, windows, 7) == [0, 0, 0]


def test_texts_are_alike_by_as_much_as_was_planted(rows: Any) -> None:
    """Every user keeps to items with one of ten words: ten times as alike as two items by chance. Or to none."""
    draw = random.Random(3)
    item_ids = [f"i{n:03}" for n in range(200)]
    words = sparse.csr_matrix((np.ones(200), (range(200), [n % 10 for n in range(200)])), (200, 10))
    for keeps, expected in ((True, 10.0), (False, 1.0)):
        events = []
        for user in range(300):
            own = [n for n in range(200) if not keeps or n % 10 == user % 10]
            events += [event(f"u{user}", item_ids[n], day) for day, n in enumerate(draw.sample(own, 8))]
            events.append(event(f"u{user}", "not in the catalogue", 9))
        taken = evidence.taken_up(rows(CLEAN_EVENTS, events))
        at = np.array([item_ids.index(i) if i in item_ids else -1 for i in taken["item_id"].to_pylist()])
        pairs, times = evidence.likeness(taken, at, words)
        assert pairs == 300 * 7 and times == pytest.approx(expected, rel=0.1)
    # What was taken up on one day are no pairs; nor is anything of items without texts.
    one_day = pa.table({"user": [1, 1, 2], "day": [4, 4, 9], "item_id": ["i000", "i010", "i000"]})
    assert evidence.likeness(one_day, np.array([0, 10, 0]), words) == (0, 1.0)
    assert evidence.likeness(taken, at, sparse.csr_matrix((200, 0)))[1] == 1.0
    assert evidence.likeness(taken, np.full(len(at), -1), words)[0] == 0


def books(**counts: int) -> list[dict[str, Any]]:
    """Rows of the ledger, and one that shows nothing."""
    other = {"run_date": DAY, "fate": "accepted", "reason": "", "row_count": 9}
    return [other, *({"run_date": DAY, "fate": SHOWN, "reason": name, "row_count": n} for name, n in counts.items())]


@pytest.mark.parametrize(("repeated", "allowed"), [(30, False), (31, True)])
def test_the_log_decides_what_nobody_set(repeated: int, allowed: bool) -> None:
    rows = books(**{LATER: 100, REPEATED: repeated})
    assert adaptive.adapted(Config(), rows).candidates.repeats_allowed is allowed
    assert adaptive.adapted(Config(), rows[:1]) == Config()
    for said in (True, False):
        config = Config(candidates=Candidates(repeats_allowed=said))
        assert adaptive.adapted(config, rows) == config
    counts = adaptive.shown(rows)
    (told,) = adaptive.told(counts, Config())
    assert f"candidates.repeats_allowed, so the log decides: {str(allowed).lower()}, as {repeated}% of the" in told
    assert adaptive.told(counts, config) == [] == adaptive.told({}, Config())
    # Of two counts of one name the later.
    later = [{**row, "run_date": DAY + dt.timedelta(days=1), "row_count": 7} for row in rows[1:]]
    assert set(adaptive.shown([*later, *rows]).values()) == {7}


@pytest.mark.parametrize(
    ("days", "returned", "expected"),
    [
        (400, {14: 500, 28: 900}, 14),
        (400, {14: 199, 28: 200}, 28),
        (400, {14: 3, 28: 4}, 28),  # never longer than four weeks
        (100, {14: 3, 28: 4}, 14),  # three cuts and as long before them are 112 days
        (40, {7: 999, 14: 999}, 7),
        (40, {3: 9, 7: 10}, 7),
        (12, {1: 500, 3: 600}, 3),
        (5, {1: 2}, 1),
        (3, {}, 1),
    ],
)  # fmt: skip
def test_a_horizon_fits_into_the_log_and_has_users_enough(days: int, returned: dict[int, int], expected: int) -> None:
    rows = books(**{LOG_DAYS: days, **{RETURNED[n]: count for n, count in returned.items()}})
    assert adaptive.adapted(Config(), rows).ranker.horizon_days == expected
    assert adaptive.adapted(Config(ranker=Ranker(horizon_days=9)), rows).ranker.horizon_days == 9
    (told,) = adaptive.told(adaptive.shown(rows), Config())
    assert f"ranker.horizon_days, so the log decides: {expected}, as {returned.get(expected, 0)} users came" in told


@pytest.mark.parametrize(
    ("foretold", "expected"),
    [
        ({28: 1000}, 28), ({28: 1000, 7: 1020}, 28), ({28: 1000, 7: 1021, 56: 1015}, 7), ({28: 0, 3: 5}, 3),
        ({28: 0}, 28),
    ],
)
def test_the_window_of_popularity_is_the_usual_one_unless_another_foretells_more(
    foretold: dict[int, int], expected: int
) -> None:
    rows = books(**{FORETOLD[days]: count for days, count in foretold.items()})
    assert adaptive.adapted(Config(), rows).profiles.recent_days == expected
    assert adaptive.adapted(Config(profiles=Profiles(recent_days=5)), rows).profiles.recent_days == 5
    (told,) = adaptive.told(adaptive.shown(rows), Config())
    assert f"profiles.recent_days, so the log decides: {expected}, as " in told


@pytest.mark.parametrize(("pairs", "percent", "texts"), [(200, 120, True), (200, 119, False), (199, 500, None)])
def test_texts_nominate_where_they_say_something(pairs: int, percent: int, texts: bool | None) -> None:
    rows = books(**{PAIRS: pairs, LIKENESS: percent})
    found = adaptive.adapted(Config(), rows).candidates
    assert found.texts is texts
    assert (found.resolved.text, found.resolved.keywords) == ((0, 0) if texts is False else (30, 30))
    assert Candidates(texts=False, text=40).resolved.text == 0 and Candidates(texts=True, text=40).resolved.text == 40


@pytest.mark.parametrize(
    ("asked", "percent", "items", "latest", "why"),
    [
        (Config(), 120, 1_000_000, 10, "texts tell what a user takes up next."),
        (Config(), 120, 1_000_001, 0, "vectors of 1,000,001 items are many (beyond 1,000,000)."),
        (Config(candidates=Candidates(repeats_allowed=True)), 120, 9, 0, "lists may hold what a user has acted on."),
        (Config(candidates=Candidates(repeats_allowed=False)), 120, 9, 10, "texts tell"),
        (Config(), 119, 9, 0, "texts do not tell what a user takes up next."),
        (Config(candidates=Candidates(texts=True)), 120, 9, 10, "texts tell"),
        (Config(candidates=Candidates(texts=False)), 120, 9, 0, "texts are switched off"),
        (Config(ranker=Ranker(loss="squared")), 120, 9, 0, "it learns ratings"),
    ],
)
def test_the_network_looks_at_latest_items_where_texts_tell(
    asked: Config, percent: int, items: int, latest: int, why: str
) -> None:
    rows = books(**{PAIRS: 200, LIKENESS: percent, ITEMS: items})
    found = adaptive.adapted(asked, rows)
    assert found.ranker.attention == latest and found.ranker.reads_vectors is bool(latest)
    told = adaptive.told(adaptive.shown(rows), asked)[-1]
    assert f"ranker.attention, so the log decides: {latest}, as {why}" in told
    # Once the log shows that people come back to items, there is nothing to be gained.
    more = {LATER: 100, REPEATED: 31}
    come_back = adaptive.adapted(asked, [*rows, *books(**more)]).ranker.attention
    assert come_back == (latest if asked.candidates.repeats_allowed is False else 0)
    # What is told of a log that has grown rests on all that it has shown, and says nothing twice.
    grown = adaptive.told({LIKENESS: percent, PAIRS: 300, ITEMS: items}, asked, more)
    assert not any("repeats_allowed" in sentence for sentence in grown)
    assert f"ranker.attention, so the log decides: {come_back}, as " in grown[-1]
    # Decided again by a log that has grown; not where somebody has set it, nor by books of before it was looked at.
    assert adaptive.adapted(found, books(**{PAIRS: 200, LIKENESS: 99, ITEMS: items}), asked).ranker.attention == 0
    set_ = asked.model_copy(update={"ranker": asked.ranker.model_copy(update={"attention": 3})})
    assert adaptive.adapted(set_, rows).ranker.attention == 3
    assert adaptive.adapted(asked, books(**{PAIRS: 200, LIKENESS: percent})).ranker.attention is None


def test_what_ratings_are_taken_for_is_told() -> None:
    counts = {adaptive.RATED: 1000, adaptive.LOW: 250}
    assert "Of 1,000 ratings 25% lie in the lower half of their range; all" in adaptive.told(counts, Config())[0]
    liked = Config(events=Events(min_positive_rating=3))
    assert "those below events.min_positive_rating = 3 count as seen" in adaptive.told(counts, liked)[0]
