"""Twenty nights in which nothing is wrong, of shops as different as they come: none is stopped."""

from __future__ import annotations

from typing import Any

import pytest
from contract_rows import NIGHT
from nightrec_jobs import audit
from shop_nights import shop, write

from nightrec.night import Night
from nightrec.store import arrow
from nightrec.tables import AUDIT_RESULTS

pytestmark = pytest.mark.usefixtures("interpreted")

WEEK = (1, 1, 1, 1, 1, 0.5, 0.5)
# Days with the users of each, the last is the night's: as in a demonstration of a few people.
FEW = [2, 0, 1, 3, 0, 0, 1, 2, 1, 0, 4, 1, 0, 2, 0, 1, 1, 0, 5, 0, 2, 1, 0, 0, 3, 1, 0, 1]
NIGHTS: dict[str, dict[str, Any]] = {
    "a steady shop": {"users": 400},
    "a small shop": {"users": 25},
    "one that grows": {"growth": 0.04, "users": 400},
    "one that shrinks": {"growth": -0.03, "users": 400},
    # The night is a Tuesday: the rhythm is turned so that it falls on the quiet day.
    "a quiet day of each week": {"users": 400, "week": (1, 0.4, 1, 1, 1, 1, 1)},
    "closed on such days": {"users": 400, "week": (1, 0, 1, 1, 1, 1, 1)},
    "the day after a closed one": {"users": 400, "week": (0, 1, 1, 1, 1, 1, 0)},
    "busy weekends": {"users": 400, "week": (0.4, 0.4, 0.4, 0.4, 0.5, 1, 1)},
    "a promotion": {"users": 400, "active": 0.3, "promotion": 2.5, "news": 0.8},
    "a promotion with new items": {"users": 300, "active": 0.3, "promotion": 2.0, "new_items": 4},
    "many newcomers": {"users": 300, "newcomers": 0.4},
    "two people a day": {"users": 12, "items": 20, "daily": [*FEW, 2], "lines": 8},
    "nobody came, as on many days": {"users": 12, "items": 20, "daily": [*FEW, 0], "lines": 8},
    "everybody came at once": {"users": 12, "items": 20, "daily": [*FEW, 12], "lines": 8},
    "a first load": {"users": 300, "nights": 0},
    "the second night": {"users": 300, "nights": 1, "days": 2},
    "ten days of a young log": {"users": 200, "nights": 3, "days": 10, "week": WEEK},
    "a catalogue that came once": {"users": 200, "snapshots": 0},
    "weekly catalogues, ratings alone": {"users": 200, "snapshots": 7, "sole": "rating", "values": False},
    "a dirty log": {"users": 300, "rejected": 0.3, "robots": 0.6, "late": 0.4},
}


@pytest.mark.parametrize("name", NIGHTS)
def test_a_clean_night_is_not_stopped(spark: Any, config: Any, store: Any, name: str) -> None:
    lists = config.lists.model_copy(update={"k": 5})
    night = Night(spark, config.model_copy(update={"lists": lists}), NIGHT, "als", "ranker", store=store)
    write(night, shop(seed=list(NIGHTS).index(name), **NIGHTS[name]))
    night.run("audit", audit.run)
    rows = arrow(store.warehouse, AUDIT_RESULTS, {"run_date": NIGHT}).to_pylist()
    assert len(rows) == 49 and all(row["passed"] or row["severity"] == "warn" for row in rows)


def test_there_are_twenty() -> None:
    assert len(NIGHTS) == 20
