"""The candidates job over contract rows: whose lists there are, what is hidden from each, where each source gets its word."""

from __future__ import annotations

import datetime as dt
from typing import Any

from nightrec.config import Candidates, Lists, Profiles
from nightrec.models import als_model_id
from nightrec.night import Night
from nightrec.pipeline import SAME_DATE
from nightrec.store import arrow
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    CANDIDATES,
    CLEAN_EVENTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    USER_EMBEDDINGS,
    USER_PROFILES,
)

from nightrec_jobs import candidates

NIGHT = dt.date(2026, 3, 10)
# The window of 5 days begins on the 6th.
INSIDE, OUTSIDE, LATER = dt.date(2026, 3, 6), dt.date(2026, 3, 5), dt.date(2026, 3, 11)


def event(user: str, item: str, day: dt.date = INSIDE, kind: str = "view", weight: float = 1.0, hour: int = 0) -> dict[str, Any]:
    return {
        "event_key": f"{user}{item}{day}{kind}", "user_id": user, "item_id": item, "event_type": kind, "weight": weight,
        "event_ts": dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC), "event_date": day, "ingest_date": day,
    }


EVENTS = [
    event("ann", "a"), event("ann", "b", hour=1), event("bob", "a"), event("bob", "b"), event("bob", "c", hour=2),
    event("cat", "a"), event("cat", "c"),
    event("ann", "d", kind="impression", weight=0.0),  # shown, not acted on: may come
    event("ann", "e", kind="dislike", weight=0.0),  # disliked: never
    event("dan", "f", day=OUTSIDE),  # a day too old to make f recent
    event("ann", "f", day=LATER),  # has not arrived by the night
]


def fill(store: Any, rows: Any, model: str, encoder: str) -> None:
    """Items a .. f and `gone`, which is in the catalogue and not available; users ann to eve, and one who is not eligible."""
    night = {"run_date": NIGHT}
    recent = {"a": 3, "b": 2, "c": 2}
    axis = {"a": 0, "b": 0, "f": 0}  # texts of a, b and f point one way, those of the others another
    store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, EVENTS))
    store.replace(ITEM_PROFILES, rows(ITEM_PROFILES, [
        {**night, "item_id": item, "recent_user_count": recent.get(item, 0), "user_count": recent.get(item, 0) + (item == "f"),
         "is_available": item != "gone", "text_hash": f"hash-{item}"}
        for item in ("a", "b", "c", "d", "e", "f", "gone")
    ]), night)
    store.replace(USER_PROFILES, rows(USER_PROFILES, [
        {**night, "user_id": "ann", "recent_items": ["b", "a"], "segment": "north"},
        {**night, "user_id": "bob", "recent_items": ["c", "b", "a"], "segment": "north", "blocked_items": ["f", "unheard-of"]},
        {**night, "user_id": "cat", "recent_items": ["c", "a"], "segment": "south"},
        {**night, "user_id": "dan", "recent_items": ["f"]},  # no segment, no factors, no embedding
        {**night, "user_id": "eve"},  # no history at all
        {**night, "user_id": "zed", "segment": "nowhere", "is_eligible": False},
    ]), night)
    store.replace(ALS_ITEM_FACTORS, rows(ALS_ITEM_FACTORS, [
        {"as_of_date": NIGHT, "model_id": model, "item_id": item, "factors": [float(n), 1.0]} for n, item in enumerate("abc")
    ]), {"as_of_date": NIGHT, "model_id": model})
    store.replace(ALS_USER_FACTORS, rows(ALS_USER_FACTORS, [
        {**night, "als_model": model, "user_id": user, "factors": [1.0, 0.0]} for user in ("ann", "bob", "cat")
    ]), {**night, "als_model": model})
    store.append(ITEM_EMBEDDINGS, rows(ITEM_EMBEDDINGS, [
        {"encoder": name, "text_hash": f"hash-{item}", "vector": [1.0, 0.0] if axis.get(item) == 0 else [0.0, 1.0]}
        for name in (encoder, "another") for item in ("a", "b", "c", "d", "e", "f", "gone")
    ]))
    store.replace(USER_EMBEDDINGS, rows(USER_EMBEDDINGS, [
        {**night, "encoder": encoder, "user_id": user, "vector": [1.0, 0.0]} for user in ("ann", "bob")
    ]), {**night, "encoder": encoder})


def found(config: Any, kind: str, key: str) -> dict[str, dict[str, Any]]:
    rows = arrow(config.paths.warehouse, CANDIDATES, {"list_kind": kind, "list_key": key}).to_pylist()
    assert len({row["item_id"] for row in rows}) == len(rows)
    return {row["item_id"]: {k: v for k, v in row.items() if v is not None} for row in rows}


def test_candidates_job(spark: Any, config: Any, store: Any, rows: Any) -> None:
    config = config.model_copy(update={"profiles": Profiles(recent_days=5), "lists": Lists(k=3), "candidates": Candidates(popularity=1)})
    model = als_model_id(NIGHT, config)
    fill(store, rows, model, config.encoder.id)
    night = Night(spark, config, NIGHT, als_model=SAME_DATE, store=store)
    books = night.run("candidates", candidates.run)
    whole = arrow(config.paths.warehouse, CANDIDATES)
    assert books.rows("written") == whole.num_rows
    assert {(r["run_date"], r["als_model"]) for r in whole.select(["run_date", "als_model"]).to_pylist()} == {(NIGHT, model)}
    lists = {(r["list_kind"], r["list_key"]) for r in whole.select(["list_kind", "list_key"]).to_pylist()}
    assert lists == {
        *(("user", user) for user in ("ann", "bob", "cat", "dan", "eve")), ("segment", "north"), ("segment", "south"),
        *(("item", item) for item in ("a", "b", "c", "d", "e", "f", "gone")), ("everyone", "everyone"),
    }
    assert "gone" not in whole["item_id"].to_pylist()

    ann = found(config, "user", "ann")
    assert set(ann) == {"c", "d", "f"}  # a and b seen, e disliked; d was only shown; f arrives tomorrow
    # a: 3 users, c: 2, both have a and c: 2. b is the newest item, shared with c by bob alone.
    assert abs(ann["c"]["cooccurrence_score"] - 2 / 6**0.5 / 1.5849625) < 1e-6
    assert (ann["c"]["als_score"], ann["c"]["segment_score"], ann["c"]["popularity_score"]) == (2.0, 1.0, 2.0)
    assert (ann["c"]["source"], ann["c"]["because_item_id"]) == ("als", "a")
    assert (ann["f"]["source"], ann["f"]["text_rank"], ann["f"]["because_item_id"]) == ("text", 1, "b")
    assert (ann["d"]["source"], ann["d"].get("popularity_rank")) == ("text", 3 if "popularity_rank" in ann["d"] else None)

    assert set(found(config, "user", "bob")) == {"d", "e"}  # f is blocked
    cat = found(config, "user", "cat")  # text: none of her own
    assert {i for i in cat if "text_rank" in cat[i]} == set() and cat["b"]["because_item_id"] == "a"
    # Popularity nominates K = 3 although set to 1: recent users, users ever, id.
    eve = found(config, "user", "eve")
    assert [(i, eve[i]["popularity_rank"], eve[i]["source"]) for i in eve] == [("a", 1, "popularity"), ("b", 2, "popularity"), ("c", 3, "popularity")]
    assert found(config, "everyone", "everyone").keys() == eve.keys()
    assert [i for i, row in sorted(found(config, "user", "dan").items()) if "popularity_rank" in row] == ["a", "b", "c"]

    south, own = found(config, "segment", "south"), found(config, "item", "a")
    assert {i: row["segment_score"] for i, row in south.items() if "segment_score" in row} == {"a": 1.0, "c": 1.0}
    assert "a" not in own and own["b"]["text_score"] == 1.0 and own["b"]["because_item_id"] == "a"
    assert found(config, "item", "gone")  # people may look at what they cannot have

    # Run again on another number of partitions, where repeats are allowed: only what is disliked or blocked is hidden.
    again = config.model_copy(update={
        "candidates": Candidates(popularity=1, repeats_allowed=True), "spark": config.spark.model_copy(update={"partitions": 5}),
    })
    Night(spark, again, NIGHT, als_model=SAME_DATE, store=store).run("candidates", candidates.run)
    assert set(found(config, "user", "ann")) == {"a", "b", "c", "d", "f"}
    after = arrow(config.paths.warehouse, CANDIDATES)
    kinds = [("list_kind", "ascending"), ("list_key", "ascending"), ("item_id", "ascending")]
    assert without_users(after).sort_by(kinds).equals(without_users(whole).sort_by(kinds))


def without_users(table: Any) -> Any:
    import pyarrow.compute as pc

    return table.filter(pc.not_equal(table["list_kind"], "user")).combine_chunks()


def test_a_night_of_nothing(spark: Any, config: Any, store: Any) -> None:
    """No events, no items, no users, no vectors: no candidates, and no error."""
    books = Night(spark, config, NIGHT, als_model=SAME_DATE, store=store).run("candidates", candidates.run)
    assert books.rows("written") == 0 and arrow(config.paths.warehouse, CANDIDATES).num_rows == 0
