"""How many days after each cut are judged: what the log is long enough for."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from nightrec.config import Config, Paths, Ranker
from nightrec.errors import UsageError
from nightrec.evaluation import protocol

FIRST = dt.date(2026, 3, 1)


def shop(root: Path, days: int, horizon: int | None) -> Config:
    """A deployment with events of so many days, and of one day that is not asked for."""
    for n in (*range(days), 400):
        (root / f"events/ingest_date={FIRST + dt.timedelta(days=n)}").mkdir(parents=True)
    # None: the horizon follows from the log.
    return Config(paths=Paths(raw=str(root)), ranker=Ranker().model_copy(update={"horizon_days": horizon}))


@pytest.mark.parametrize(
    ("days", "horizon", "cuts", "taken"),
    [
        # 3 cuts of 14 days and twice 14 before them, and the last day.
        (71, 14, 3, 14), (70, 14, 3, 7), (50, 14, 3, 7), (49, 14, 3, 3), (37, 14, 3, 1), (32, 14, 3, 1),
        (57, 14, 2, 14), (43, 14, 1, 14),
        # A horizon that goes with the log is as long as what is judged.
        (71, None, 3, 14), (70, None, 3, 7), (36, None, 3, 7), (35, None, 3, 3), (16, None, 3, 3), (15, None, 3, 1),
        (6, None, 3, 1),
    ],
)  # fmt: skip
def test_the_most_days_that_the_log_permits(
    tmp_path: Path, days: int, horizon: int | None, cuts: int, taken: int
) -> None:
    config, last = shop(tmp_path, days, horizon), FIRST + dt.timedelta(days=days - 1)
    found, _ = protocol.days_for(config, cuts, last)
    assert found == taken
    wanted = protocol.cuts(config, cuts, taken, last)
    assert wanted == [last - dt.timedelta(days=taken * n) for n in range(cuts, 0, -1)]
    longer = next((more for more in reversed(protocol.DAYS) if more > taken), None)
    if longer:
        with pytest.raises(UsageError, match=f"{cuts} cuts of {longer} days and a training of twice "):
            protocol.cuts(config, cuts, longer, last)


def test_why_is_told(tmp_path: Path) -> None:
    last = FIRST + dt.timedelta(days=39)
    config = shop(tmp_path, 40, 14)
    assert protocol.days_for(config, 3, last) == (
        3, "The log's 40 days are too short for 3 cuts of 14 days: judged by 3 days after each."
    )  # fmt: skip
    one = last - dt.timedelta(days=8)  # 32 days
    assert protocol.days_for(config, 1, one) == (
        3, "The log's 32 days are too short for 1 cut of 14 days: judged by 3 days after it."
    )  # fmt: skip
    assert protocol.days_for(config, 3)[1] == (
        "The log's 401 days are long enough for 3 cuts of 14 days: judged by 14 days after each."
    )


def test_no_log_is_long_enough_for_anything(tmp_path: Path) -> None:
    config, last = shop(tmp_path, 31, 14), FIRST + dt.timedelta(days=30)
    for until, arrived in ((last, 31), (FIRST - dt.timedelta(days=1), 0)):
        days, _ = protocol.days_for(config, 3, until)
        assert days == 1
        with pytest.raises(UsageError, match=f"twice 14 days need 31 days before the last; the {arrived} dates of "):
            protocol.cuts(config, 3, days, until)
