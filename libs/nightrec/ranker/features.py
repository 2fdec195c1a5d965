"""What the ranker knows about a candidate: one function for training and scoring alike."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from nightrec.tables import SOURCES

_SOURCE_FEATURES = ("nominated", "score_share", "reciprocal_rank")
_ITEM_FEATURES = (
    "popularity_share", "user_count_percentile", "recent_user_count_percentile", "item_age_log_days", "item_trend_log",
)
_USER_FEATURES = ("user_event_count_log", "user_days_since_last_log", "user_item_count_log")

# The order is part of every trained model: the names are kept in its row and compared before it scores.
FEATURES: tuple[str, ...] = (
    *(f"{source}_{name}" for source in SOURCES for name in _SOURCE_FEATURES),
    *_ITEM_FEATURES,
    *_USER_FEATURES,
    "category_share",
)


def features(candidates: DataFrame, items: DataFrame, users: DataFrame) -> DataFrame:
    """The candidates of user lists with `features`, an array of floats in the order of FEATURES.

    Grain: one row per row of `candidates` (contract CANDIDATES) with list_kind user, all its columns kept; rows of
    other kinds are left out. `items` and `users` are ITEM_PROFILES and USER_PROFILES of the same night.
    No feature is null, NaN or infinite: what is unknown is 0. Counts go in as percentiles of the night, shares or
    logarithms, so that a log that grows does not drift away from what the model was trained on.

    One shuffle, by list: the lists' largest scores and the users' profiles share it; items are broadcast.
    """
    of_list = Window.partitionBy("list_key")
    lists = candidates.where(F.col("list_kind") == "user").withColumns(
        {f"_{source}_largest": F.max(_finite(f"{source}_score")).over(of_list) for source in SOURCES}
    )
    joined = lists.join(_user_columns(users), "list_key", "left")
    joined = joined.join(F.broadcast(_item_columns(items)), "item_id", "left")
    values = [
        *(column for source in SOURCES for column in _source_columns(source)),
        *(F.coalesce(F.col(f"_{name}"), F.lit(0.0)) for name in (*_ITEM_FEATURES, *_USER_FEATURES)),
        _category_share(),
    ]
    return joined.select(*candidates.columns, F.array(*(value.cast("float") for value in values)).alias("features"))


def _finite(name: str) -> Column:
    """A score, 0 for null and NaN: `least` would skip a null, and NaN counts as larger than every number in Spark."""
    return F.coalesce(F.nanvl(F.col(name), F.lit(0.0)), F.lit(0.0))


def _source_columns(source: str) -> tuple[Column, Column, Column]:
    """Nominated (0 or 1); score over the list's largest, in -1..1, 0 where that is not above 0; 1/rank."""
    rank, largest = F.col(f"{source}_rank"), F.col(f"_{source}_largest")
    share = F.when(largest > 0, F.greatest(F.least(_finite(f"{source}_score") / largest, F.lit(1.0)), F.lit(-1.0)))
    return (
        rank.isNotNull().cast("double"),
        F.coalesce(share, F.lit(0.0)),
        F.coalesce(1.0 / rank, F.lit(0.0)),
    )


def _item_columns(items: DataFrame) -> DataFrame:
    """Per item: percentiles in 0..1 among the items of the night (ties share one), age since the first event, trend.

    Trend is log((recent + 1) / sqrt(all + 1)): users lately against what an item of that size has gathered.
    """
    age = F.datediff("run_date", F.to_date("first_event_ts"))
    return items.select(
        "item_id",
        F.col("categories").alias("_categories"),
        F.col("popularity_share").alias("_popularity_share"),
        F.percent_rank().over(Window.orderBy("user_count")).alias("_user_count_percentile"),
        F.percent_rank().over(Window.orderBy("recent_user_count")).alias("_recent_user_count_percentile"),
        F.log1p(F.greatest(age, F.lit(0))).alias("_item_age_log_days"),
        F.log((F.col("recent_user_count") + 1) / F.sqrt(F.col("user_count") + 1)).alias("_item_trend_log"),
    )


def _user_columns(users: DataFrame) -> DataFrame:
    return users.select(
        F.col("user_id").alias("list_key"),
        F.col("category_shares").alias("_category_shares"),
        F.log1p("event_count").alias("_user_event_count_log"),
        F.log1p(F.greatest("days_since_last", F.lit(0))).alias("_user_days_since_last_log"),
        F.log1p("item_count").alias("_user_item_count_log"),
    )


def _category_share() -> Column:
    """Largest share of the user's events in any category of the item; 0 where either is unknown."""
    shares = F.transform("_categories", lambda category: F.try_element_at("_category_shares", category))
    return F.coalesce(F.array_max(shares), F.lit(0.0))  # array_max skips nulls
