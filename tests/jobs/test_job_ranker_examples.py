"""Labels are point-in-time: each event is on the side of a cut on which it arrived."""

from __future__ import annotations

import datetime as dt

import pytest
from nightrec_jobs.ranker_examples import run

from nightrec.models import als_model_id
from nightrec.night import Night
from nightrec.tables import CANDIDATES, CLEAN_EVENTS, RANKER_EXAMPLES, USER_PROFILES

AS_OF = dt.date(2026, 3, 10)
TRAIN, VALID = dt.date(2026, 2, 10), dt.date(2026, 2, 24)
ARRIVED = {
    "on the train cut": TRAIN,  # known at that cut
    "day after": dt.date(2026, 2, 11),
    "end of the horizon": VALID,  # also the day of the next cut: known there
    "day after the next cut": dt.date(2026, 2, 25),
    "training date": AS_OF,
    "too late": dt.date(2026, 3, 11),
}
ACT = {"user_id": "u", "weight": 1.0, "event_type": "view"}
# What the user acted on in (cut, cut + 14 days].
POSITIVES = {TRAIN: {"day after", "end of the horizon"}, VALID: {"day after the next cut", "training date"}}


@pytest.fixture
def training(spark, config, store) -> Night:
    ranker = config.ranker.model_copy(update={"horizon_days": 14, "past_cuts": 2, "negatives_share": 1.0})
    return Night(spark, config.model_copy(update={"ranker": ranker}), AS_OF, store=store)


def test_an_event_counts_on_the_side_of_the_cut_on_which_it_arrived(training, store, rows):
    # each item is named after the day it was acted on; the event's own time, long before, decides nothing
    events = [
        {"event_key": item, "ingest_date": day, "item_id": item, "event_date": TRAIN, **ACT}
        for item, day in ARRIVED.items()
    ]
    # The log is old enough for both cuts.
    start = TRAIN - dt.timedelta(days=14)
    events.append({"event_key": "old", "ingest_date": start, "item_id": "old", **ACT, "user_id": "x"})
    # acted on after the train cut, never a candidate
    events.append({"event_key": "m", "ingest_date": VALID, "item_id": "missed", **ACT})
    store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, events))
    store.append(USER_PROFILES, rows(USER_PROFILES, [
        {"run_date": TRAIN, "user_id": "u", "event_count": 1},
        {"run_date": VALID, "user_id": "u", "event_count": 3},
    ]))
    candidates = [
        {"run_date": cut, "als_model": als_model_id(cut, training.config), "list_kind": "user", "list_key": "u",
         "item_id": item, "als_rank": 1, "als_score": 1.0, "features": [float(cut.day)]}
        for cut in POSITIVES for item in ARRIVED
    ]
    # of factors that knew what came after the cut: not for training
    candidates.append(candidates[0] | {"als_model": als_model_id(AS_OF, training.config), "item_id": "leak"})
    store.append(CANDIDATES, rows(CANDIDATES, candidates))

    books = training.run("ranker_examples", run)

    found = training.store.read(RANKER_EXAMPLES).collect()
    assert {(row.cut_date, row.item_id, row.label) for row in found} == {
        (cut, item, float(item in positives)) for cut, positives in POSITIVES.items() for item in ARRIVED
    }
    folds = {(row.as_of_date, row.cut_date, row.fold) for row in found}
    assert folds == {(AS_OF, TRAIN, 0), (AS_OF, VALID, 1)}
    assert {(row.cut_date, *row.features) for row in found} == {(TRAIN, 10.0), (VALID, 24.0)}  # as of their cut
    assert (books.rows("written"), books.rows("positive"), books.rows("missed")) == (12, 4, 1)


def test_a_short_log_has_one_cut_and_says_so(training, store, rows):
    day = VALID - dt.timedelta(days=20)
    users = [f"u{n}" for n in range(40)]
    store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, [
        *({"event_key": f"{u} before", "ingest_date": day, "item_id": "b", **ACT, "user_id": u} for u in users),
        *({"event_key": f"{u} after", "ingest_date": AS_OF, "item_id": "a", **ACT, "user_id": u} for u in users),
    ]))
    store.append(USER_PROFILES, rows(USER_PROFILES, [
        {"run_date": cut, "user_id": user, "event_count": 1} for user in users for cut in (TRAIN, VALID)
    ]))
    model = als_model_id(VALID, training.config)
    store.append(CANDIDATES, rows(CANDIDATES, [
        {"run_date": VALID, "als_model": model, "list_kind": "user", "list_key": user, "item_id": item, "als_rank": 1,
         "als_score": 1.0, "features": [1.0]}
        for user in users for item in ("a", "b")
    ]))
    books = training.run("ranker_examples", run)
    found = store.read(RANKER_EXAMPLES).collect()
    assert {row.cut_date for row in found} == {VALID} and {row.fold for row in found} == {0, 1}
    assert len(found) == 80 and books.rows("positive") == 40
    assert ("cut", "of 2: the log reaches no further back", 1) in books.lines


def test_without_events_on_both_sides_there_is_no_example(training):
    books = training.run("ranker_examples", run)
    assert (books.rows("written"), books.rows("positive")) == (0, 0)
