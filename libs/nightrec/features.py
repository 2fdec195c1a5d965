"""What the ranker is told of a candidate, by name: the candidates stage computes it, training and scoring read it.

The order is part of every trained model: its row in ranker_models keeps the names, and they are compared before it
scores. `nightrec.serving.features` says how each is computed.
"""

from __future__ import annotations

from itertools import chain

from nightrec.tables import WINDOWS

# Sources whose score says something of any item, and those of them that also come times the item's trend: that of four
# weeks, by which they nominate too, and that of one (a shop's new items: NDCG@10 .140 with it, .136 without).
SCORED = (
    "als", "neighbour_users", "cooccurrence", "bm25", "linear", "transitions", "text", "keywords", "attributes",
    "habit", "segment",
)  # fmt: skip
RISING = ("als", "neighbour_users", "cooccurrence", "linear", "transitions")
TRENDS = ("rising", "week")
_WITHIN_LIST = ("share", "z", "place")

GROUPS: dict[str, tuple[str, ...]] = {
    **{source: tuple(f"{source}_{name}" for name in _WITHIN_LIST) for source in SCORED},
    **{
        f"{source} {trend}": tuple(f"{source}_{trend}_{name}" for name in _WITHIN_LIST)
        for trend in TRENDS
        for source in RISING
    },
    "item counts": (
        *(f"users_{days}_days_percentile" for days in WINDOWS),
        *(f"users_{days}_days_share" for days in WINDOWS),
        "users_ever_percentile",
    ),
    "item": (
        "item_age_percentile", "item_idle_percentile", "trend_percentile", "week_trend_percentile",
        "week_over_month_log", "repeat_share", "repeat_gap_log",
    ),
    "user": (
        "user_event_count_log", "user_item_count_log", "user_days_since_last_log", "user_popularity_percentile",
        "user_trend_percentile",
    ),
    "own": (
        "own_days", "own_share", "own_age_log", "own_gap_log", "own_age_over_gap", "own_age_over_item_gap",
        "own_age_over_user_age",
    ),
    "affinities": (
        "category_share", "attribute_share", "tag_share", "price_band_share", "price_distance", "price_is_known",
    ),
    "time": ("item_weekday_log", "user_weekday_share"),
    "cold": ("item_is_cold", "item_is_unseen", "user_is_light"),
    "nominations": ("nomination_count",),
}  # fmt: skip
FEATURES: tuple[str, ...] = tuple(chain.from_iterable(GROUPS.values()))
