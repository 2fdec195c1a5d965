"""The candidates job over contract rows: whose lists there are, what is hidden from each, what each source says."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from nightrec_jobs import candidates
from pyspark.sql import functions as F

from nightrec.config import Candidates, Lists, Profiles
from nightrec.features import FEATURES, GROUPS
from nightrec.night import Night
from nightrec.pipeline import SAME_DATE
from nightrec.serving.catalogue import Catalogue
from nightrec.stopwatch import Stopwatch
from nightrec.store import arrow, predicate
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    CANDIDATES,
    CLEAN_EVENTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    SOURCES,
    USER_EMBEDDINGS,
    USER_PROFILES,
    VOUCHED,
    WINDOWS,
)

NIGHT = dt.date(2026, 3, 10)
# The window of 5 days begins on the 6th.
MODEL = "als-20260310"
INSIDE, OUTSIDE, LATER = dt.date(2026, 3, 6), dt.date(2026, 3, 5), dt.date(2026, 3, 11)
WEDNESDAY = dt.date(2026, 3, 4)


def event(
    user: str, item: str, day: dt.date = INSIDE, kind: str = "view", weight: float = 1.0, hour: int = 0
) -> dict[str, Any]:
    return {
        "event_key": f"{user}{item}{day}{kind}",
        "user_id": user,
        "item_id": item,
        "event_type": kind,
        "weight": weight,
        "event_ts": dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC),
        "event_date": day,
        "ingest_date": day,
    }


EVENTS = [
    event("ann", "a"),
    event("ann", "b", hour=1),
    event("bob", "a"),
    event("bob", "b"),
    event("bob", "c", hour=2),
    event("cat", "a"),
    event("cat", "c"),
    event("ann", "d", kind="impression", weight=0.0),  # shown, not acted on: may come
    event("ann", "e", kind="dislike", weight=0.0),  # disliked: never
    event("dan", "f", day=OUTSIDE),  # a day too old to make f recent
    event("dan", "f", day=WEDNESDAY),
    event("ann", "f", day=LATER),  # has not arrived by the night
]


class Shop:
    """A night whose tables are frames: what the job asks for and hands over, without a warehouse."""

    def __init__(self, config: Any, tables: dict[str, Any]) -> None:
        self.config, self.date, self.als_model, self.is_replay = config, NIGHT, MODEL, False
        self.tables, self.written = tables, pa.table({})
        self.clock = Stopwatch(tables[CLEAN_EVENTS.name].sparkSession)

    def read(self, table: Any, where: Any = None) -> Any:
        return self.tables[table.name].where(predicate(where or {"run_date": self.date}))

    def events(self) -> Any:
        return self.tables[CLEAN_EVENTS.name].where(F.col("ingest_date") <= F.lit(self.date))

    def replace(self, table: Any, frame: Any, where: Any) -> None:
        assert (table, where) == (CANDIDATES, {"run_date": NIGHT, "als_model": MODEL})
        order = [(name, "ascending") for name in ("list_kind", "list_key", "item_id")]
        self.written = table.checked(frame, "writing").toArrow().sort_by(order)

    def found(self, kind: str, key: str) -> dict[str, dict[str, Any]]:
        """Candidates of a list by item, without what is null."""
        rows = [row for row in self.written.to_pylist() if (row["list_kind"], row["list_key"]) == (kind, key)]
        assert len({row["item_id"] for row in rows}) == len(rows)
        return {row["item_id"]: {name: v for name, v in row.items() if v is not None} for row in rows}


def tables(rows: Any, encoder: str) -> dict[str, Any]:
    """Items a .. f and `gone`, in the catalogue but not available; users ann to eve, and zed, who is not eligible."""
    night, items = {"run_date": NIGHT}, ("a", "b", "c", "d", "e", "f", "gone")
    recent = {"a": 3, "b": 2, "c": 2}
    frames: dict[Any, list[dict[str, Any]]] = {
        CLEAN_EVENTS: EVENTS,
        ITEM_PROFILES: [
            {
                **night,
                "item_id": item,
                "recent_user_count": recent.get(item, 0),
                "is_available": item != "gone",
                "user_count": recent.get(item, 0) + (item == "f"),
                "event_count": 5 if item == "e" else 6,
                "text_hash": f"hash-{item}",
                "window_user_counts": [0] * len(WINDOWS),
                # The lists are read on a Wednesday.
                "weekday_user_days": [1, 0, 4 if item == "e" else 1, 0, 0, 0, 1],
                "attributes": {"Price": f"{n},50 €", "brand": "x" if item in "be" else "y"},
                "text": "vinyl" if item in "be" else item,
                "tags": ["vinyl"] if item in "be" else [],
            }
            for n, item in enumerate(items)
        ],
        USER_PROFILES: [
            {**night, "user_id": "ann", "event_count": 2, "recent_items": ["b", "a"], "segment": "north"},
            {
                **night,
                "user_id": "bob",
                "event_count": 3,
                "recent_items": ["c", "b", "a"],
                "segment": "north",
                "blocked_items": ["f", "unheard-of"],
            },
            {**night, "user_id": "cat", "event_count": 2, "recent_items": ["c", "a"], "segment": "south"},
            {**night, "user_id": "dan", "event_count": 1, "recent_items": ["f"]},  # no segment, no vectors
            {**night, "user_id": "eve"},  # no history at all
            {**night, "user_id": "zed", "segment": "nowhere", "is_eligible": False},
        ],
        ALS_ITEM_FACTORS: [
            {"as_of_date": NIGHT, "model_id": model, "item_id": item, "factors": [sign * n, 1.0]}
            for model, sign in ((MODEL, 1.0), ("another", -1.0))
            for n, item in enumerate("abc")
        ],
        ALS_USER_FACTORS: [
            {"run_date": day, "als_model": MODEL, "user_id": user, "factors": [sign, 0.0]}
            for day, sign in ((NIGHT, 1.0), (OUTSIDE, -1.0))
            for user in ("ann", "bob", "cat")
        ],
        # The texts of a, b and f point one way, those of the others another.
        ITEM_EMBEDDINGS: [
            {"encoder": name, "text_hash": f"hash-{item}", "vector": [1.0, 0.0] if item in "abf" else [0.0, 1.0]}
            for name in (encoder, "another")
            for item in items
        ],
        # Eve's says what her attributes are and nothing of her taste: it must not nominate.
        USER_EMBEDDINGS: [
            {**night, "encoder": encoder, "user_id": user, "vector": [1.0, 0.0]} for user in ("ann", "bob", "eve")
        ],
    }
    return {table.name: rows(table, values) for table, values in frames.items()}


def by_users(shop: Shop, kind: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Per list of a kind the candidates that a source named because of what users did."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in shop.written.filter(pc.field("list_kind") == kind).to_pylist():
        if any(row[f"{source}_rank"] for source in VOUCHED):
            told = {name: value for name, value in row.items() if value is not None}
            found.setdefault(row["list_key"], {})[row["item_id"]] = told
    return found


def test_candidates_job(config: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The lists are read on the day after the night: d is no pick any more.
    picks = ({"item": "d", "until": NIGHT}, "c")
    config = config.model_copy(
        update={
            "profiles": Profiles(recent_days=5),
            "lists": Lists(k=3),
            "candidates": Candidates(popularity=1, editorial=picks),
        }
    )
    shop = Shop(config, tables(rows, config.encoder.id))
    candidates.run(shop)  # type: ignore[arg-type]
    whole, found = shop.written, shop.found
    # What each source took was told, of preparing and of nominating, and what they have in common.
    parts = shop.clock.seconds()
    assert set(parts) == {*SOURCES} - {"habit"} | {"pairs", "union", "features"}
    assert min(parts.values()) >= 0 and parts["linear"] > parts["editorial"]
    assert {(r["run_date"], r["als_model"]) for r in whole.to_pylist()} == {(NIGHT, MODEL)}
    assert {(r["list_kind"], r["list_key"]) for r in whole.to_pylist()} == {
        *(("user", user) for user in ("ann", "bob", "cat", "dan", "eve")),
        ("segment", "north"),
        ("segment", "south"),
        *(("item", item) for item in ("a", "b", "c", "d", "e", "f", "gone")),
        ("everyone", "everyone"),
    }
    assert "gone" not in whole["item_id"].to_pylist()

    ann = found("user", "ann")
    assert set(ann) == {"c", "d", "f"}  # a and b seen, e disliked; d was only shown; f arrives tomorrow
    # a: 3 users, c: 2, both have a and c: 2. b is the newest item, shared with c by bob alone.
    assert abs(ann["c"]["cooccurrence_score"] - 2 / 6**0.5 / 1.5849625) < 1e-6
    # She took up b after a, as nobody else did; bob took up c one moment after b and a, which he had at once.
    following = 1 / (2 + 10) + 1 / (6**0.5 + 10) / 1.5849625
    assert abs(ann["c"]["transitions_score"] - following) < 1e-6 and ann["c"]["bm25_rank"] == 1
    # Bob has a, b and c, cat a and c: both are like her, and she is no neighbour of her own.
    assert abs(ann["c"]["neighbour_users_score"] - (2 / 6**0.5 + 1 / 2)) < 1e-6
    # One user of the segment, and the prior's 50 times what c has of a, which everybody likes best.
    assert abs(ann["c"]["segment_score"] - (1 + 50 * 2 / 3)) < 1e-5
    assert (ann["c"]["als_score"], ann["c"]["popularity_score"]) == (2.0, 2.0)
    assert (ann["c"]["source"], ann["c"]["because_item_id"]) == ("als", "a")
    assert (ann["f"]["source"], ann["f"]["text_rank"], ann["f"]["because_item_id"]) == ("text", 1, "b")
    assert (ann["d"]["source"], ann["d"]["popularity_rank"]) == ("text", 3)

    bob = found("user", "bob")
    assert set(bob) == {"d", "e"}  # f is blocked
    # The third of his latest is b, whose word and tag e shares, though nobody ever acted on it.
    assert bob["e"]["keywords_score"] == bob["e"]["attributes_score"] == 0.5
    assert found("item", "b")["e"]["keywords_rank"] == found("item", "e")["b"]["attributes_rank"] == 1
    cat = found("user", "cat")  # text: none of her own
    assert {i for i in cat if "text_rank" in cat[i]} == set() and cat["b"]["because_item_id"] == "a"
    # Popularity nominates K = 3 although set to 1: recent users, users ever, id.
    # What the ranker is told goes with lists of users who did something.
    assert all(len(row["features"]) == len(FEATURES) for row in ann.values())
    # Of a, b and c, which bob has, b alone has the brand and the tag of e; prices are 0.50 to 6.50. Of 21 days of users
    # of what is available 9 were Wednesdays, of e's 6 days 4; everything counts as 20 days more.
    told = dict(zip(FEATURES, bob["e"]["features"], strict=True))
    log = math.log((4 + 20 * 9 / 21) / (26 * 9 / 21))
    expected = {
        "attribute_share": 1 / 3, "tag_share": 1 / 3, "price_band_share": 0, "price_distance": 4 / 6 - 1 / 6,
        "price_is_known": 1, "item_weekday_log": log, "user_weekday_share": 0, "item_is_cold": 1, "item_is_unseen": 1,
        "user_is_light": 1,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == pytest.approx(expected)
    assert [bob["d"]["features"][FEATURES.index(name)] for name in GROUPS["cold"]] == [0, 1, 1]
    dan = found("user", "dan")["e"]["features"]
    assert dan[FEATURES.index("user_weekday_share")] == 0.5
    eve = found("user", "eve")
    # What is new is drawn for everybody but who must not see it: one item, with certainty.
    for drawn in eve["e"], found("segment", "south")["e"]:
        assert (drawn["new_items_rank"], drawn["new_items_score"]) == (1, 1.0)
    assert "new_items_rank" not in found("item", "b")["e"] and found("everyone", "everyone").keys() == eve.keys()
    del eve["e"]
    assert not any("features" in row for row in (*eve.values(), *found("item", "a").values()))
    assert [(i, eve[i]["popularity_rank"], eve[i]["source"]) for i in eve] == [
        ("a", 1, "newcomers"),
        ("b", 2, "newcomers"),
        ("c", 3, "editorial"),
    ]
    # All three came on the 6th: a was with all of them then, b and c with two, in step with what is recent.
    assert [eve[i]["newcomers_score"] for i in "abc"] == pytest.approx([3 + 20, *[2 + 20 * 2 / 3] * 2])
    assert not any("newcomers_rank" in row for row in (*ann.values(), *found("segment", "north").values()))
    assert {i: row["editorial_rank"] for i, row in eve.items() if "editorial_rank" in row} == {"c": 1}
    assert [i for i, row in sorted(found("user", "dan").items()) if "popularity_rank" in row] == ["a", "b", "c"]

    south, own = found("segment", "south"), found("item", "a")
    assert {i: row["segment_rank"] for i, row in south.items() if "segment_rank" in row} == {"a": 1, "c": 2}
    assert "a" not in own and own["b"]["text_score"] == 1.0 and own["b"]["because_item_id"] == "a"
    assert found("item", "gone")  # people may look at what they cannot have

    # Another number of partitions, and repeats allowed: only what is disliked or blocked is hidden from users.
    shop.config = config.model_copy(
        update={
            "candidates": Candidates(popularity=1, repeats_allowed=True, editorial=picks),
            "spark": config.spark.model_copy(update={"partitions": 5}),
        }
    )
    candidates.run(shop)  # type: ignore[arg-type]
    assert set(found("user", "ann")) == {"a", "b", "c", "d", "f"}
    others = pc.field("list_kind") != "user"
    assert shop.written.filter(others).equals(whole.filter(others))

    # Item vectors that outgrow the workers' memory come from files, and nothing else changes.
    shop.config = config
    with monkeypatch.context() as large:
        large.setattr(Catalogue, "worker_bytes", 2**50)
        candidates.run(shop)  # type: ignore[arg-type]
    assert shop.written.equals(whole)

    # At least two users behind each row of lists for nobody in particular: a, b and c have as many, and of pairs of
    # them a with each; in the north c has one, and b and c were had together by bob alone.
    shop.config = config.model_copy(update={"lists": Lists(k=3, min_users=2)})
    candidates.run(shop)  # type: ignore[arg-type]
    told = {name: rows for name in ("user", "segment", "item", "everyone") if (rows := by_users(shop, name))}
    assert set(told["everyone"]["everyone"]) == set(told["segment"]["south"]) == {"a", "b", "c"}
    assert {i for i, row in told["segment"]["north"].items() if "segment_rank" in row} == {"a", "b"}
    pairs = ("cooccurrence_rank", "bm25_rank", "linear_rank", "transitions_rank")
    near = {key: {i for i, row in rows.items() if set(pairs) & set(row)} for key, rows in told["item"].items()}
    assert (near["a"], near["b"], near["c"], near["f"]) == ({"b", "c"}, {"a"}, {"a"}, set())
    assert not {"d", "e", "f"} & {i for kind in ("segment", "everyone") for near in told[kind].values() for i in near}
    # Lists of users rest on what they always do.
    users = pc.field("list_kind") == "user"
    names = ["list_key", "item_id", "als_score", "cooccurrence_score", "popularity_rank"]
    assert shop.written.filter(users).select(names).equals(whole.filter(users).select(names))
    # Of three there is one item, and no pair.
    shop.config = config.model_copy(update={"lists": Lists(k=3, min_users=3)})
    candidates.run(shop)  # type: ignore[arg-type]
    assert set(by_users(shop, "everyone")["everyone"]) == {"a"}
    assert not any(set(pairs) & set(row) for rows in by_users(shop, "item").values() for row in rows.values())

    # A past night replayed for training: the same lists of users, and no others.
    shop.config, shop.is_replay = config, True
    candidates.run(shop)  # type: ignore[arg-type]
    assert shop.written.equals(whole.filter(pc.field("list_kind") == "user"))


def test_a_night_of_nothing(spark: Any, config: Any, store: Any) -> None:
    """No events, no items, no users, no vectors: no candidates, and no error."""
    books = Night(spark, config, NIGHT, als_model=SAME_DATE, store=store).run("candidates", candidates.run)
    assert books.rows("written") == 0 and arrow(config.paths.warehouse, CANDIDATES).num_rows == 0
