"""The rule by which newer models serve, at its edges."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from nightrec import gate
from nightrec.config import Gate
from nightrec.gate import Duel
from nightrec.metrics.bootstrap import Interval

OLD, NEW = ("als-1", "ranker-1"), ("als-2", "ranker-2")
MONDAY = dt.date(2026, 3, 9)
DAY = dt.timedelta(days=1)
ALS = {"als-1": MONDAY - DAY, "als-2": MONDAY}
RANKERS = {"ranker-1": MONDAY - DAY, "ranker-2": MONDAY}
SETTINGS = Gate(margin=0.05, min_users=10, max_wait_days=3)


def duel(champion: float, challenger: float) -> Duel:
    means = [Interval(mean, mean, mean, 20) for mean in (champion, challenger)]
    return Duel(10, *means, Interval(challenger - champion, -0.1, 0.1, 20))


@pytest.mark.parametrize(
    ("challenger", "verdict", "serving"),
    [(0.5, "promoted", NEW), (0.3801, "promoted", NEW), (0.3799, "refused", OLD), (0.0, "refused", OLD)],
)
def test_worse_by_more_than_the_margin_is_refused(challenger: float, verdict: str, serving: Any) -> None:
    row = gate.judged(OLD, NEW, duel(0.4, challenger), SETTINGS)
    assert (row["verdict"], row["als_model"], row["ranker_model"]) == (verdict, *serving)
    assert (row["challenger_als_model"], row["challenger_ranker_model"]) == NEW
    for told in ("20 users", "NDCG@10", f"{challenger:.4f}", "0.4000", "-0.0200 is allowed", "-0.1000 to +0.1000"):
        assert told in row["reason"]


def test_two_that_find_nothing_are_alike_and_nobody_speaks_against() -> None:
    assert gate.judged(OLD, NEW, duel(0.0, 0.0), SETTINGS)["verdict"] == "promoted"
    row = gate.judged(OLD, NEW, None, SETTINGS)
    assert row["verdict"] == "promoted" and "nobody with a list came back within 3 days" in row["reason"]


def rows(*last: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"run_date": MONDAY + DAY * n, **row} for n, row in enumerate(last)]


def test_who_challenges() -> None:
    first = gate.unjudged(OLD, "they are the first")
    assert gate.challenger(rows(first), OLD, ALS, RANKERS) == NEW
    # A training that has come half way: its ranker with the factors that serve.
    assert gate.challenger(rows(first), OLD, {"als-1": MONDAY}, RANKERS) == ("als-1", "ranker-2")
    assert gate.challenger(rows(first), NEW, ALS, RANKERS) is None
    # Waiting goes on, a refusal is for good, until the next training.
    waits = gate.waiting(OLD, NEW, 3, SETTINGS, 1)
    assert "3 users" in waits["reason"] and "of the 10 by whom" in waits["reason"]
    assert gate.challenger(rows(first, waits), OLD, ALS, RANKERS) == NEW
    refused = gate.judged(OLD, NEW, duel(0.4, 0.1), SETTINGS)
    assert gate.challenger(rows(first, waits, refused), OLD, ALS, RANKERS) is None
    later = {**RANKERS, "ranker-3": MONDAY + DAY}
    assert gate.challenger(rows(first, refused), OLD, ALS, later) == ("als-2", "ranker-3")
    # What was barred when an older pair was made champion again is passed over.
    back = {**gate.unjudged(OLD, ""), "verdict": "reinstated", "barred": ["als-2", "ranker-2"]}
    assert gate.challenger(rows(first, back), OLD, ALS, RANKERS) is None
    assert gate.challenger(rows(first, back), OLD, ALS, later) == ("als-1", "ranker-3")


def test_a_refusal_is_told_until_something_else_is_decided() -> None:
    first, refused = gate.unjudged(OLD, "they are the first"), gate.judged(OLD, NEW, duel(0.4, 0.1), SETTINGS)
    row = gate.kept(rows(first, refused), OLD)
    assert row["reason"].startswith("As of 2026-03-10: The challenger als-2 with ranker-2 is refused")
    assert row["challenger_als_model"] == "als-2"
    row = gate.kept(rows(first, refused, row), OLD)
    assert row["reason"].startswith("As of 2026-03-10: The challenger")
    promoted = gate.judged(OLD, NEW, duel(0.4, 0.5), SETTINGS)
    row = gate.kept(rows(first, refused, promoted), NEW)
    assert row["challenger_als_model"] is None and "nothing newer may challenge them" in row["reason"]
