"""What keeps an item off a user's lists: the one rule that making lists and judging them share."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def hides(*, repeats_allowed: bool | None) -> Column:
    """Whether an event hides its item from its user: any but an impression, which the user did not ask for; only a
    dislike where repeats are allowed."""
    kind = F.col("event_type")
    return kind == "dislike" if repeats_allowed else kind != "impression"
