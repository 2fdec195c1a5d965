"""Events that name a served list, counted by what they were."""

from __future__ import annotations

import datetime as dt

from nightrec.serving.outcomes import joined, outcomes
from nightrec.tables import CLEAN_EVENTS, OUTCOMES, RANKED_TOPK

BEFORE, NIGHT = dt.date(2026, 3, 9), dt.date(2026, 3, 10)


def test_outcomes_are_counted_by_list_and_item(rows):
    ranked = rows(
        RANKED_TOPK,
        [
            {
                "run_date": BEFORE,
                "list_kind": "user",
                "list_key": "u",
                "list_id": "L",
                "rank": 1,
                "item_id": "a",
                "source": "als",
                "probability": 0.25,
            },
            {
                "run_date": BEFORE,
                "list_kind": "user",
                "list_key": "u",
                "list_id": "L",
                "rank": 2,
                "item_id": "b",
                "source": "text",
            },
            # The same list the night after, a from another source: still one row, with the source it came from first.
            {
                "run_date": NIGHT,
                "list_kind": "user",
                "list_key": "u",
                "list_id": "L",
                "rank": 1,
                "item_id": "a",
                "source": "popularity",
            },
            {
                "run_date": NIGHT,
                "list_kind": "user",
                "list_key": "u",
                "list_id": "L",
                "rank": 2,
                "item_id": "b",
                "source": "text",
            },
            {
                "run_date": NIGHT,
                "list_kind": "item",
                "list_key": "a",
                "list_id": "unused",
                "rank": 1,
                "item_id": "a",
                "source": "text",
            },
        ],
    )

    def event(item: str, kind: str, weight: float = 1.0, **context: str) -> dict[str, object]:
        return {
            "ingest_date": NIGHT,
            "user_id": "u",
            "item_id": item,
            "event_type": kind,
            "weight": weight,
            "context": context,
        }

    events = rows(
        CLEAN_EVENTS,
        [
            event("a", "impression", 0.0, list_id="L", rank="9"),  # the rank that the event claims is not used
            event("a", "impression", 0.0, list_id="L"),
            event("a", "view", list_id="L"),
            event("a", "click", list_id="L"),
            event("a", "purchase", 5.0, list_id="L"),
            event("b", "dislike", 0.0, list_id="L"),  # none of the three: no row
            event("z", "click", list_id="L"),  # not an item of the list
            event("a", "click", list_id="never served"),
            event("a", "purchase", 5.0),
            event("a", "purchase", 5.0, surface="home"),  # names no list
            {**event("a", "view"), "context": None},
        ],
    )
    named = joined(events, ranked).cache()
    assert named.where("list_kind IS NULL").count() == 1
    result = OUTCOMES.checked(outcomes(named, NIGHT), "test").orderBy("item_id").collect()
    assert [tuple(row) for row in result] == [
        (NIGHT, "L", "user", "u", "a", 1, "als", 0.25, 2, 2, 1),
        (NIGHT, "L", "user", "u", "z", None, None, None, 0, 1, 0),
    ]
    named.unpersist()


def test_no_events_no_outcomes(rows):
    assert outcomes(joined(rows(CLEAN_EVENTS, []), rows(RANKED_TOPK, [])), NIGHT).count() == 0
