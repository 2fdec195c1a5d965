"""Days of the last eight weeks as the bits of one number, and which of them fell on a day of the week.

As a number a set of days costs no list per row: Spark adds such numbers up by `bit_or`. Bit n is the day n days before
the night. Days of the week are numbers from 0, Monday.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from nightrec.tables import WEEKDAY_DAYS

if TYPE_CHECKING:
    from pyspark.sql import Column


def reading(run_date: date) -> int:
    """The day of the week on which a night's lists are read: that of the day after."""
    return (run_date + timedelta(days=1)).weekday()


def days(counts: Column, run_date: date) -> Column:
    """An aggregate: the event_dates of the rows that `counts` among the WEEKDAY_DAYS that end with `run_date`."""
    age = F.date_diff(F.lit(run_date), "event_date")
    bit = F.call_function("shiftleft", F.lit(1).cast("bigint"), age)
    return F.coalesce(F.bit_or(F.when(counts & age.between(0, WEEKDAY_DAYS - 1), bit)), F.lit(0).cast("bigint"))


def on(days: Column, run_date: date, weekday: int) -> Column:
    """How many of `days` fell on the day of the week."""
    ages = (age for age in range(WEEKDAY_DAYS) if (run_date - timedelta(days=age)).weekday() == weekday)
    return F.bit_count(days.bitwiseAND(F.lit(sum(1 << age for age in ages)).cast("bigint")))
