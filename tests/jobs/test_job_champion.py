"""Who serves: a ranker that learned from shuffled labels is refused, a better one and the first ones are not."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from nightrec_jobs import champion, ranker_model
from shop_nights import put

from nightrec import models
from nightrec.config import Config, Gate
from nightrec.errors import UsageError
from nightrec.features import FEATURES
from nightrec.night import Night
from nightrec.past.undo import roll_back
from nightrec.store import arrow
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    CANDIDATES,
    CHAMPIONS,
    CLEAN_EVENTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    NIGHT_MODELS,
    PUBLISHED_TOPK,
    RANKED_TOPK,
    RANKER_EXAMPLES,
    RANKER_MODELS,
    TABLES,
    USER_EMBEDDINGS,
    USER_PROFILES,
)

DAY = dt.timedelta(days=1)
FIRST, TRAINED, NIGHT = dt.date(2026, 3, 1), dt.date(2026, 3, 7), dt.date(2026, 3, 10)
USERS, ITEMS = [f"u{n:02}" for n in range(40)], [f"i{n:02}" for n in range(12)]


def told(user: int, item: int) -> list[float]:
    """The features of a candidate: one of them tells what the user will take up, the others nothing."""
    draw = np.random.default_rng(user * 100 + item)
    features = draw.normal(size=len(FEATURES))
    features[0] = wants(user, item)
    return [float(part) for part in features]


def wants(user: int, item: int) -> float:
    return 1.0 if item % 4 == user % 4 else 0.0


def learn(night: Night, as_of: dt.date, *, shuffled: bool = False) -> str:
    """A ranker trained as of a date, from examples whose labels follow from the feature, or from nothing at all."""
    labels = np.array([wants(user, item) for user in range(len(USERS)) for item in range(len(ITEMS))])
    if shuffled:
        labels = np.random.default_rng(1).permutation(labels)
    night.store.put(RANKER_EXAMPLES, [
        {
            "as_of_date": as_of, "cut_date": as_of, "fold": user % 2, "is_lesson": True, "user_id": USERS[user],
            "item_id": ITEMS[item], "label": float(labels[user * len(ITEMS) + item]), "kinds": ["view"], "rating": None,
            "features": told(user, item),
        }
        for user in range(len(USERS))
        for item in range(len(ITEMS))
    ], {"as_of_date": as_of})  # fmt: skip
    past = night.at(as_of)
    past.run("ranker_model", ranker_model.run)
    return models.ranker_model_id(as_of, night.config)


@pytest.fixture
def town(spark: Any, config: Config, store: Any) -> Night:
    """A shop whose users do, after the training of a second ranker, what one feature says; factors are the first's."""
    learned = {"epochs": 1, "batch": 64, "hidden": (4,), "trees": 20, "tree_leaf_weight": 1.0, "blend": "trees"}
    ranker = config.ranker.model_copy(update=learned)
    gate = Gate(min_users=20, max_wait_days=5)
    lists = config.lists.model_copy(update={"k": 3})
    sections = {"ranker": ranker, "gate": gate, "lists": lists}
    night = Night(spark, config.model_copy(update=sections), NIGHT, store=store)
    store.put(ALS_ITEM_FACTORS, [
        {"as_of_date": FIRST, "model_id": "als-1", "item_id": item, "factors": [1.0]} for item in ITEMS
    ], {"as_of_date": FIRST, "model_id": "als-1"})  # fmt: skip
    put(night, CLEAN_EVENTS, [
        {
            "ingest_date": NIGHT - DAY * ago, "event_date": NIGHT - DAY * ago, "event_key": f"{user}{item}",
            "user_id": USERS[user], "item_id": ITEMS[item], "event_type": "view", "weight": 1.0,
        }
        for user in range(len(USERS))
        for item in range(len(ITEMS))
        if wants(user, item)
        # Half of the users come on the first day after the training, all by the third.
        for ago in [2 if user < 19 else 0]
    ])  # fmt: skip
    at = {"run_date": TRAINED}
    put(night, ITEM_PROFILES, [{**at, "item_id": item} for item in ITEMS])
    put(night, USER_PROFILES, [{**at, "user_id": user, "event_count": 3} for user in USERS])
    put(night, ALS_USER_FACTORS, [{**at, "als_model": "als-1", "user_id": user, "factors": [1.0]} for user in USERS])
    put(night, USER_EMBEDDINGS, [{**at, "encoder": "", "user_id": user, "vector": [1.0]} for user in USERS])
    put(night, ITEM_EMBEDDINGS, [{"encoder": "", "text_hash": "-", "vector": [1.0]}])
    put(night, CANDIDATES, [
        {
            **at, "als_model": "als-1", "list_kind": "user", "list_key": user, "item_id": item, "source": "als",
            "als_rank": m + 1, "als_score": 1.0, "features": told(n, m),
        }
        for n, user in enumerate(USERS)
        for m, item in enumerate(ITEMS)
    ])  # fmt: skip
    return night


def decide(night: Night, day: dt.date) -> dict[str, Any]:
    """The night's row, once as it was decided and once more as it stays; and nothing else was written."""
    before = {table.name: night.store.version(table) for table in TABLES}
    books = night.at(day).run("champion", champion.run)
    changed = {table.name for table in TABLES if night.store.version(table) != before[table.name]}
    assert changed == {"champions", "ledger", "manifests"}
    again = night.at(day).run("champion", champion.run)
    assert again.rows("unchanged") == 1 and again.said == books.said
    row = next(row for row in arrow(night.store.warehouse, CHAMPIONS).to_pylist() if row["run_date"] == day)
    assert books.said == ((row["reason"],) if row["verdict"] != "kept" or row["challenger_als_model"] else ())
    return row


def test_a_ranker_of_shuffled_labels_is_refused(town: Night) -> None:
    with pytest.raises(UsageError, match="no ranker trained as of 2026-03-10"):
        town.run("champion", champion.run)
    good = learn(town, FIRST)
    row = decide(town, TRAINED - DAY)
    assert (row["verdict"], row["als_model"], row["ranker_model"]) == ("unjudged", "als-1", good)
    bad = learn(town, TRAINED, shuffled=True)
    row = decide(town, TRAINED)
    assert (row["verdict"], row["user_count"], row["ranker_model"]) == ("waiting", 0, good)
    row = decide(town, NIGHT - DAY)
    assert (row["verdict"], row["user_count"], row["ranker_model"]) == ("waiting", 19, good)
    assert "19 users came back in the 2 days" in row["reason"]
    row = decide(town, NIGHT)
    assert (row["verdict"], row["user_count"], row["ranker_model"]) == ("refused", 40, good)
    assert row["champion_ndcg"] > 0.9 and row["challenger_ndcg"] < 0.6
    assert row["difference"] == pytest.approx(row["challenger_ndcg"] - row["champion_ndcg"])
    assert row["low"] <= row["difference"] <= row["high"] < 0
    assert f"The challenger als-1 with {bad} is refused" in row["reason"] and "40 users" in row["reason"]
    # For good; and the night ranks with the champion.
    row = decide(town, NIGHT + DAY)
    assert (row["verdict"], row["ranker_model"]) == ("kept", good)
    assert "As of 2026-03-10: The challenger" in row["reason"]
    assert town.at(NIGHT + DAY).ranker_model == good
    # Switched off, the newest serves.
    off = town.config.model_copy(update={"gate": Gate(is_on=False)})
    town.config = off
    assert decide(town, NIGHT + DAY * 2)["ranker_model"] == bad
    # One command back: and what was trained since challenges no more.
    for night, ranker in ((NIGHT + DAY, good), (NIGHT + DAY * 2, bad)):
        made = {"list_kind": "user", "list_key": "a", "list_id": ranker, "items": [], "changed_date": night}
        said = {"night": f"{night}", "als_model": "als-1", "ranker_model": ranker}
        frame = town.spark.createDataFrame([tuple(made.values())], PUBLISHED_TOPK.schema())
        town.store.merge(PUBLISHED_TOPK, frame, "list_id", said)
    roll_back(town.store, 30, NIGHT + DAY)
    town.config = off.model_copy(update={"gate": Gate(min_users=1)})
    for night in (NIGHT + DAY * 3, NIGHT + DAY * 4):
        row = decide(town, night)
        assert (row["verdict"], row["ranker_model"], row["barred"]) == ("kept", good, [bad])


def test_a_better_one_serves_and_the_list_tables_are_not_touched(town: Night) -> None:
    bad = learn(town, FIRST, shuffled=True)
    assert decide(town, TRAINED - DAY)["ranker_model"] == bad
    good = learn(town, TRAINED)
    # Named for a night, models are not judged in it.
    row = champion.decided(Night(town.spark, town.config, NIGHT, None, bad, town.store), _rows(town))
    assert (row["verdict"], row["ranker_model"]) == ("kept", bad) and "were named" in row["reason"]
    row = decide(town, NIGHT)
    assert (row["verdict"], row["ranker_model"], row["challenger_ranker_model"]) == ("promoted", good, good)
    assert row["low"] > 0 and "champion from now on" in row["reason"]
    assert town.at(NIGHT).ranker_model == good
    assert arrow(town.store.warehouse, RANKED_TOPK).num_rows == 0
    assert {row["run_date"] for row in arrow(town.store.warehouse, NIGHT_MODELS).to_pylist()} == {NIGHT}
    # Its file goes: the newest that is left serves, and it is said.
    town.store.put(RANKER_MODELS, [], {"as_of_date": TRAINED, "model_id": good})
    row = decide(town, NIGHT + DAY)
    assert (row["verdict"], row["ranker_model"]) == ("unjudged", bad) and "are not there any more" in row["reason"]


def _rows(night: Night) -> list[dict[str, Any]]:
    return models.champions(night.store.warehouse, NIGHT)
