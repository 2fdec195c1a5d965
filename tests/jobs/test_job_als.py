"""The factor jobs over two nights: what had arrived, who is solved, who is copied, what is booked."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from nightrec_jobs import als_item_factors, als_user_factors

from nightrec.als.fold_in import user_factors
from nightrec.config import Als
from nightrec.errors import UsageError
from nightrec.models import als_model_id
from nightrec.night import Night
from nightrec.pipeline import SAME_DATE
from nightrec.store import arrow
from nightrec.tables import ALS_ITEM_FACTORS, ALS_USER_FACTORS, CLEAN_EVENTS

FIRST, SECOND, THIRD, FOURTH = (dt.date(2026, 3, day) for day in (8, 9, 10, 11))


def event(user: str, item: str, day: dt.date, weight: float = 1.0) -> dict[str, Any]:
    return {
        "event_key": f"{user}-{item}-{day}",
        "user_id": user,
        "item_id": item,
        "ingest_date": day,
        "weight": weight,
        "event_type": "view",
    }


@pytest.fixture
def config(config: Any) -> Any:
    return config.model_copy(update={"als": Als(rank=3, iterations=2)})


def test_factor_jobs(spark: Any, config: Any, store: Any, rows: Any) -> None:
    store.append(
        CLEAN_EVENTS,
        rows(
            CLEAN_EVENTS,
            [
                *(event(user, item, FIRST) for user in "abc" for item in "xyz" if (user, item) != ("a", "z")),
                event("a", "z", SECOND),  # news of a
                event("b", "x", SECOND, weight=0.0),  # says nothing: b stays as it is
                event("d", "y", SECOND),  # a user that the first night did not know
                event("e", "late", SECOND),  # an item that the factors do not know: no row
                event("c", "x", FOURTH),  # arrives after the third night
            ],
        ),
    )
    first = Night(spark, config, FIRST, als_model=SAME_DATE, store=store)
    model = als_model_id(FIRST, config)
    books = first.run("als_item_factors", als_item_factors.run)
    assert books.rows("written") == 3
    items = arrow(config.paths.warehouse, ALS_ITEM_FACTORS).to_pylist()
    assert {(r["as_of_date"], r["model_id"], r["item_id"], len(r["factors"])) for r in items} == {
        (FIRST, model, i, 3) for i in "xyz"
    }

    books = first.run("als_user_factors", als_user_factors.run)
    assert (books.rows("solved"), books.rows("copied"), books.rows("written")) == (3, 0, 3)

    second = Night(spark, config, SECOND, als_model=model, ranker_model="any", store=store)
    books = second.run("als_user_factors", als_user_factors.run)
    assert (books.rows("solved"), books.rows("copied"), books.rows("written")) == (2, 2, 4)
    found = {
        r["user_id"]: r["factors"]
        for r in arrow(config.paths.warehouse, ALS_USER_FACTORS, {"run_date": SECOND}).to_pylist()
    }
    everyone = user_factors(second.events(), store.read(ALS_ITEM_FACTORS), config.als).toArrow().to_pylist()
    assert found == {r["user_id"]: r["factors"] for r in everyone}
    assert set(found) == set("abcd")
    # The night's own partition is no yesterday: run again, it solves the same users.
    assert als_user_factors.solved_before(second) == FIRST
    assert als_user_factors.solved_before(first) is None
    # A night without news copies everybody.
    third = Night(spark, config, THIRD, als_model=model, ranker_model="any", store=store)
    books = third.run("als_user_factors", als_user_factors.run)
    assert (books.rows("solved"), books.rows("copied"), books.rows("written")) == (0, 4, 4)
    # A date that came late is cleaned: what was solved on the nights since then no longer holds, whoever it is about.
    store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, [event("b", "z", FIRST, weight=9.0)]))
    fourth = Night(spark, config, FOURTH, als_model=model, ranker_model="any", store=store)
    books = fourth.run("als_user_factors", als_user_factors.run)
    assert (books.rows("solved"), books.rows("copied"), books.rows("written")) == (4, 0, 4)
    unknown = Night(spark, config, SECOND, als_model="als-typo", ranker_model="any", store=store)
    with pytest.raises(UsageError, match="2026-03-09: there are no item factors named als-typo"):
        unknown.run("als_user_factors", als_user_factors.run)
