"""What is usual, and what is more than chance."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest

from nightrec.serving import trailing
from nightrec.serving.trailing import Night, Past, beyond, dropped, on_the_way, risen, stale

TUESDAY = dt.date(2026, 3, 10)
DAY = dt.timedelta(days=1)


def outcome(row: dict[str, Any]) -> str:
    """note, passed, warn or stop."""
    return "note" if row["severity"] == "note" else "passed" if row["passed"] else row["severity"]


def test_a_figure_beyond_its_limits() -> None:
    assert [outcome(beyond("x", found, (1, 2), "")) for found in (1, 1.1, 2, 2.1)] == ["passed", "warn", "warn", "stop"]
    # What is surely there counts, not what was seen.
    row = beyond("x", 3, (1, 2), "", sure=1.5)
    assert outcome(row) == "warn" and (row["found"], row["limit"]) == (3, 1)
    assert outcome(beyond("x", 9, (1, math.inf), "")) == "warn"


def test_a_share_that_rose() -> None:
    usual = [0.02, 0.03, 0.02, 0.01, 0.02, 0.03, 0.02]

    def of(part: int, whole: int, usual: list[float] = usual) -> str:
        return outcome(risen("x", part, whole, usual, (0.1, 0.3), "bad"))

    assert [of(part, 1000) for part in (50, 200, 500)] == ["passed", "warn", "stop"]
    # Three of ten are chance, as far as is known; of no lines there is no share.
    assert of(3, 10) == "passed" and of(0, 0) == "note"
    # Six dates show nothing usual; a log whose share comes and goes shows that it does.
    assert of(500, 1000, usual[:6]) == "note"
    assert of(500, 1000, [0.1, 0.6, 0.3, 0.0, 0.7, 0.2, 0.5]) == "passed"


def test_a_share_on_its_way_to_all() -> None:
    def of(found: float, error: float, usual: list[float]) -> str:
        return outcome(on_the_way("x", found, error, usual, (0.3, 0.6), ""))

    assert [of(found, 0.01, [0.1] * 3) for found in (0.3, 0.5, 0.7)] == ["passed", "warn", "stop"]
    # Where nearly all changes every night, all may; and of a few lists nothing is sure.
    assert of(1.0, 0.0, [0.97, 1.0, 1.0]) == "passed" and of(1.0, 0.5, [0.1] * 3) == "passed"
    assert of(1.0, 0.0, [0.1] * 2) == "note"


def test_a_number_that_dropped() -> None:
    shop = {TUESDAY - DAY * ago: 1000.0 for ago in range(1, 29)}

    def of(found: float, history: dict[dt.date, float], units: float | None = None) -> str:
        return outcome(dropped("x", found, history, TUESDAY, (0.3, 0.4), "lines", units))

    assert [of(found, shop) for found in (800, 650, 500)] == ["passed", "warn", "stop"]
    # A thousand lines of a thousand users are no chance, those of five are.
    assert (of(500, shop, 1000), of(500, shop, 5), of(0, shop, 5)) == ("stop", "passed", "passed")
    assert of(0, shop, 20) == "stop"
    # Closed on Tuesdays; on Mondays, which says nothing of Tuesdays.
    for weekday, expected in ((1, "note"), (0, "stop")):
        closed = {day: 0.0 if day.weekday() == weekday else count for day, count in shop.items()}
        assert of(0, closed) == expected
    # In the first two weeks no day of the week is known, in the first days nothing.
    young = {day: count for day, count in shop.items() if TUESDAY - day <= DAY * 10}
    assert of(0, young) == "warn" and of(0, {TUESDAY - DAY: 1000.0}) == "note" and of(0, {}) == "note"
    # Where days differ by a half anyway, half is nothing.
    restless = {day: 1000.0 * (1 + n % 3) for n, day in enumerate(shop)}
    assert of(500, restless) in ("passed", "warn")


def test_ages_follow_from_the_rhythm() -> None:
    def of(*ages: int) -> str:
        return outcome(stale("x", [TUESDAY - DAY * ago for ago in ages], TUESDAY, (3, 7), "snapshots"))

    assert (of(4, 3, 2, 1), of(8, 7, 6, 5), of(12, 11, 10, 9)) == ("passed", "warn", "stop")
    # Every week; once; never.
    assert (of(30, 23, 16, 9), of(200), of()) == ("passed", "note", "note")


def test_only_nights_like_this_one_show_what_is_usual() -> None:
    nights = [Night(TUESDAY - DAY * ago, {"x": float(ago)}, "a" if ago % 2 else "b") for ago in (5, 3, 2)]
    past = Past(nights=[*nights, Night(TUESDAY - DAY, {"x": math.nan, "y": 1.0}, "a")], settings="a")
    assert past.usual("x") == [5.0, 3.0, 2.0] and past.usual("x", alike=True) == [5.0, 3.0]
    assert past.reference(TUESDAY) == past.nights[-1] and past.reference(TUESDAY + DAY * 9) is None
    assert trailing.trailing(TUESDAY, 5, TUESDAY - DAY * 2) == [TUESDAY - DAY * 2, TUESDAY - DAY]


@pytest.mark.parametrize("part", [0, 1, 7])
def test_the_least_share_that_is_sure_is_below_what_was_seen(part: int) -> None:
    assert 0 <= trailing._at_least(part, 7) <= part / 7
