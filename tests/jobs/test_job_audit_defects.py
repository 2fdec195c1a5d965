"""Defects put into a good night one by one: each is stopped, by the check that is named for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from contract_rows import NIGHT
from nightrec_jobs import audit, published_topk
from pyspark.sql import SparkSession
from shop_nights import DAY, Row, Shop, fingerprint, ledger, put, ranked, shop, short, write

from nightrec.config import Config, Lists, Paths, Spark
from nightrec.contract import Table
from nightrec.errors import AuditRefused
from nightrec.night import Night
from nightrec.store import Store, arrow
from nightrec.tables import (
    ALS_USER_FACTORS,
    AUDIT_RESULTS,
    CLEAN_EVENTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    LEDGER,
    PUBLISHED_TOPK,
    RANKED_TOPK,
    RANKER_MODELS,
    SHORTFALLS,
    USER_PROFILES,
)

pytestmark = pytest.mark.usefixtures("interpreted")

K = 5
# So many that half of a day's lines are no chance.
USERS, ITEMS = 1000, 40
Changed = dict[Table, list[Row]]
Defect = Callable[[Shop], Changed]


def only(made: Shop, table: Table, change: Callable[[Row], Row]) -> Changed:
    """A table with some of its rows changed."""
    return {table: [change(row) for row in made.tables[table]]}


def tonight(change: Callable[[Row], Row]) -> Defect:
    """Events of the night changed."""
    return lambda made: only(
        made, CLEAN_EVENTS, lambda row: {**row, **change(row)} if row["ingest_date"] == NIGHT else row
    )


def books(**changes: Callable[[dict[str, int]], int]) -> Defect:
    """The night's books with other counts."""

    def changed(made: Shop) -> Changed:
        fates = made.books[NIGHT]
        counts = {**fates, **{fate: count(fates) for fate, count in changes.items()}}
        rows = [row for row in made.tables[LEDGER] if row["run_date"] != NIGHT]
        return {LEDGER: [*rows, *ledger({NIGHT: counts})]}

    return changed


def lists(made: Shop, rows: list[Row]) -> Changed:
    """Other lists tonight, with the shortfalls that go with them."""
    before = [row for row in made.tables[RANKED_TOPK] if row["run_date"] != NIGHT]
    whole = made.tables[RANKED_TOPK], made.tables[SHORTFALLS]
    made.tables[RANKED_TOPK] = [*before, *rows]
    short(made)
    changed = {table: made.tables[table] for table in (RANKED_TOPK, SHORTFALLS)}
    made.tables[RANKED_TOPK], made.tables[SHORTFALLS] = whole
    return changed


def of_tonight(made: Shop) -> list[Row]:
    return [row for row in made.tables[RANKED_TOPK] if row["run_date"] == NIGHT]


def one_list(kind: str, key: str, change: Callable[[Row], Row]) -> Defect:
    """Rows of one list changed."""

    def changed(made: Shop) -> Changed:
        rows = of_tonight(made)
        return lists(made, [
            {**row, **change(row)} if (row["list_kind"], row["list_key"]) == (kind, key) else row for row in rows
        ])  # fmt: skip

    return changed


def swapped(kind: str, key: str, place: int, item: Callable[[Shop], str]) -> Defect:
    """Another item at a place of a list, whose list_id says so."""

    def changed(made: Shop) -> Changed:
        rows = of_tonight(made)
        own = [row for row in rows if (row["list_kind"], row["list_key"]) == (kind, key)]
        items = [item(made) if row["rank"] == place else row["item_id"] for row in own]
        scores = [row["score"] for row in own]
        return lists(made, [row for row in rows if row not in own] + ranked(NIGHT, kind, key, items, scores))

    return changed


def scored(change: Callable[[float], float]) -> Defect:
    """Other scores in all users' lists."""
    return lambda made: lists(made, [
        {**row, "score": change(row["score"])} if row["list_kind"] == "user" else row for row in of_tonight(made)
    ])  # fmt: skip


def halved(made: Shop) -> Changed:
    """Every other line of the night got lost, before it was cleaned."""
    there = [row for row in made.tables[CLEAN_EVENTS] if row["ingest_date"] == NIGHT]
    gone = {row["event_key"] for row in there[::2]}
    counts = books(**{fate: (lambda f, fate=fate: f[fate] // 2) for fate in made.books[NIGHT]})(made)  # type: ignore[misc]
    return {CLEAN_EVENTS: [row for row in made.tables[CLEAN_EVENTS] if row["event_key"] not in gone]} | counts


def emptied(made: Shop) -> Changed:
    counts = books(**{fate: (lambda f: 0) for fate in made.books[NIGHT]})(made)
    return {CLEAN_EVENTS: [row for row in made.tables[CLEAN_EVENTS] if row["ingest_date"] != NIGHT]} | counts


def half_a_catalogue(made: Shop) -> Changed:
    left = set(made.items[::2])
    rows = made.lists(available=range(0, ITEMS, 2))
    rows = [row for row in rows if row["list_kind"] != "item" or row["list_key"] in left]
    there = {"in_catalogue": lambda row: row["item_id"] in left, "is_available": lambda row: row["item_id"] in left}
    profiles = only(made, ITEM_PROFILES, lambda row: {**row, **{name: of(row) for name, of in there.items()}})
    return lists(made, rows) | profiles


def swapped_ids(made: Shop) -> Changed:
    """The columns of users and items are exchanged in the night's file: its users are items."""
    events = tonight(lambda row: {"user_id": row["item_id"], "item_id": row["user_id"]})(made)
    strangers = {row["user_id"]: 0 for row in events[CLEAN_EVENTS] if row["ingest_date"] == NIGHT}
    for row in events[CLEAN_EVENTS]:
        if row["ingest_date"] == NIGHT:
            strangers[row["user_id"]] += 1
    profiles = [
        {"run_date": NIGHT, "user_id": user, "event_count": count, "is_eligible": False}
        for user, count in strangers.items()
    ]
    items = [{"run_date": NIGHT, "item_id": user, "in_catalogue": False, "is_available": False} for user in made.users]
    return events | {
        USER_PROFILES: made.tables[USER_PROFILES] + profiles, ITEM_PROFILES: made.tables[ITEM_PROFILES] + items,
    }  # fmt: skip


def other_ids(made: Shop) -> Changed:
    """Items are named by numbers of another system."""
    items = [
        {"run_date": NIGHT, "item_id": f"sku-{item}", "in_catalogue": False, "is_available": False}
        for item in made.items
    ]
    return tonight(lambda row: {"item_id": f"sku-{row['item_id']}"})(made) | {
        ITEM_PROFILES: made.tables[ITEM_PROFILES] + items
    }


def old_ranker(made: Shop) -> Changed:
    return only(made, RANKER_MODELS, lambda row: {**row, "as_of_date": NIGHT - DAY * 500})


def without_the_favourite(made: Shop) -> Changed:
    """An item that many lists held is on none, though it is available."""
    rows = made.lists(available=[item for item in range(ITEMS) if item != favourite(made)])
    return lists(made, rows)


def favourite(made: Shop) -> int:
    held: dict[str, int] = {}
    for row in made.tables[RANKED_TOPK]:
        if row["run_date"] != NIGHT and row["list_kind"] == "user":
            held[row["item_id"]] = held.get(row["item_id"], 0) + 1
    return made.items.index(max(held, key=lambda item: held[item]))


def in_all_lists(made: Shop) -> Changed:
    """What came out today stands on every user's list."""
    rows = [row for row in of_tonight(made) if row["list_kind"] != "user"]
    for user, own in _by_user(made).items():
        items = ["hit", *(row["item_id"] for row in own[: K - 1])]
        rows += ranked(NIGHT, "user", user, items, [row["score"] for row in own])
    hit = {"run_date": NIGHT, "item_id": "hit"}
    return lists(made, [*rows, *ranked(NIGHT, "item", "hit", made.items[:K])]) | {
        ITEM_PROFILES: [*made.tables[ITEM_PROFILES], hit]
    }


_LISTS: dict[int, dict[str, list[Row]]] = {}


def _by_user(made: Shop) -> dict[str, list[Row]]:
    if id(made) not in _LISTS:
        found: dict[str, list[Row]] = {}
        for row in of_tonight(made):
            if row["list_kind"] == "user":
                found.setdefault(row["list_key"], []).append(row)
        _LISTS[id(made)] = found
    return _LISTS[id(made)]


def users_missing(made: Shop) -> Changed:
    """A third of the users is not eligible any more."""
    fit = [n % 3 != 0 for n in range(USERS)]
    names = {name for name, is_fit in zip(made.users, fit, strict=True) if not is_fit}
    profiles = only(made, USER_PROFILES, lambda row: {**row, "is_eligible": row["user_id"] not in names})
    rows = made.lists(eligible=fit)
    before = [row for row in made.tables[RANKED_TOPK] if row["run_date"] != NIGHT]
    shortfalls = [row for row in made.tables[SHORTFALLS] if row["list_key"] not in names]
    return profiles | {RANKED_TOPK: [*before, *rows], SHORTFALLS: shortfalls}


def of_another_user(made: Shop) -> Changed:
    """Everybody has the next one's list, in proper form."""
    own = _by_user(made)
    names = list(own)
    rows = [row for row in of_tonight(made) if row["list_kind"] != "user"]
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        rows += ranked(NIGHT, "user", name, [r["item_id"] for r in own[other]], [r["score"] for r in own[other]])
    return lists(made, rows)


def mixed_encoders(made: Shop) -> Changed:
    first, *others = made.tables[ITEM_EMBEDDINGS]
    return {ITEM_EMBEDDINGS: [{**first, "vector": [0.5, 0.5]}, *others]}


def no_number(made: Shop) -> Changed:
    first, *others = made.tables[ALS_USER_FACTORS]
    return {ALS_USER_FACTORS: [{**first, "factors": [math.nan, 0.0, 0.0, 0.0]}, *others]}


def blocked(made: Shop) -> Changed:
    item = _by_user(made)["u0001"][0]["item_id"]
    return only(made, USER_PROFILES, lambda row: row | ({"blocked_items": [item]} if row["user_id"] == "u0001" else {}))


def unavailable(made: Shop) -> Changed:
    return only(made, ITEM_PROFILES, lambda row: row | ({"is_available": False} if row["item_id"] == "i003" else {}))


def acted_on(made: Shop) -> str:
    return made.items[int(made.seen[1].argmax())]


def of_few_users(made: Shop) -> Changed:
    """Four users have the first item of everyone's list, where five are wanted."""
    return only(made, ITEM_PROFILES, lambda row: row | ({"user_count": 4} if row["item_id"] == "i000" else {}))


# What is wrong, and the check that is named for it. A ranker of shuffled labels is the gate's: test_job_champion.py.
DEFECTS: dict[str, tuple[str, Defect]] = {
    "empty input": ("volume", emptied),
    "half the volume": ("volume", halved),
    "a duplicated day": (
        "duplicate_share", books(read=lambda f: 2 * f["read"], duplicate=lambda f: f["duplicate"] + f["read"]),
    ),
    "a flood of rejects": (
        "rejected_share", books(read=lambda f: f["read"] + 600, rejected=lambda f: f["rejected"] + 600),
    ),
    "a flood of robots": ("robot_share", books(read=lambda f: 3 * f["read"], robot=lambda f: 2 * f["read"])),
    "all times shifted by weeks": (
        "late_share", books(late=lambda f: f["accepted"] + f["late"], accepted=lambda f: 0),
    ),
    "the wrong date": ("event_dates", tonight(lambda row: {"event_date": NIGHT - DAY})),
    "an event type renamed": (
        "event_types", tonight(lambda row: {"event_type": row["event_type"].replace("view", "comment")}),
    ),
    "values in cents": ("event_values", tonight(lambda row: {"value": row["value"] and row["value"] * 100})),
    "users and items exchanged": ("unknown_users", swapped_ids),
    "item ids of another form": ("unknown_items", other_ids),
    "a catalogue cut in half": ("catalogue_size", half_a_catalogue),
    "a stale catalogue": ("items_age", lambda made: {}),  # see `snapshots`
    "a stale model": ("ranker_age", old_ranker),
    "vectors that are no numbers": ("finite_vectors", no_number),
    "two encoders mixed": ("vector_widths", mixed_encoders),
    "a popular item missing": ("popular_items", without_the_favourite),
    "one item in all lists": ("one_item", in_all_lists),
    "users missing": ("users_lost", users_missing),
    "users without a list": (
        "user_share",
        lambda made: {RANKED_TOPK: [
            row for row in made.tables[RANKED_TOPK] if row["run_date"] != NIGHT or row["list_key"] > "u0100"
        ]},
    ),
    "lists of another user": ("quiet_churn", of_another_user),
    "scores that drifted": ("score_drift", scored(lambda score: round(0.75 + score / 4, 6))),
    "infinite scores": ("finite_scores", one_list("user", "u0001", lambda row: {"score": math.inf})),
    "scores below 0": (
        "score_range", one_list("user", "u0001", lambda row: {"score": -0.5} if row["rank"] == K else {}),
    ),
    "scores in another order": ("score_order", one_list("user", "u0001", lambda row: {"score": row["rank"] / 10})),
    "ranks from 0": ("ranks", one_list("user", "u0001", lambda row: {"rank": row["rank"] - 1})),
    "an item twice in a list": (
        "unique_items", swapped("user", "u0001", 2, lambda made: _by_user(made)["u0001"][0]["item_id"]),
    ),
    "a forged list_id": (
        "list_ids", one_list("user", "u0001", lambda row: {"list_id": fingerprint("user", "u0002", "ab")}),
    ),
    "an item similar to itself": ("not_itself", swapped("item", "i005", 1, lambda made: "i005")),
    "a blocked item": ("not_blocked", blocked),
    "an item acted on": ("not_seen", swapped("user", "u0001", K, acted_on)),
    "an unavailable item": ("available_items", unavailable),
    "an unknown item": ("known_items", swapped("user", "u0001", K, lambda made: "nowhere")),
    "no list for everyone": (
        "list_kinds",
        lambda made: lists(made, [row for row in of_tonight(made) if row["list_kind"] != "everyone"]),
    ),
    "a list of what few users did": ("distinct_users", of_few_users),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Night, Shop]]:
    """A night in which nothing is wrong, of a shop that asks for five users behind what it tells everybody."""
    root = tmp_path_factory.mktemp("defects")
    paths = Paths(**{name: str(root / name) for name in Paths.model_fields})
    config = Config(paths=paths, spark=Spark(master="local[2]", partitions=2), lists=Lists(k=K, min_users=5))
    store = Store(spark, paths.warehouse, run_id="test")
    night = Night(spark, config, NIGHT, "als", "ranker", store=store)
    made = shop(USERS, ITEMS, K, active=0.75, seed=5, nights=15)
    write(night, made)
    yield night, made
    store.close()


def verdict(night: Night) -> dict[str, Any]:
    """What the night's audit finds, by check; and whether it stopped the night, as `stopped`."""
    try:
        night.run("audit", audit.run)
        stopped = False
    except AuditRefused:
        stopped = True
    rows = arrow(night.store.warehouse, AUDIT_RESULTS, {"run_date": NIGHT}).to_pylist()
    return {row["check_name"]: row for row in rows} | {"stopped": stopped}


def failed(found: dict[str, Any]) -> dict[str, str]:
    return {
        name: row["detail"] for name, row in found.items() if name != "stopped" and not row["passed"]
    }


def test_the_night_itself_passes(good: tuple[Night, Shop]) -> None:
    found = verdict(good[0])
    assert not found["stopped"] and not failed(found)
    assert {"severity": "note"}.items() <= found["content"].items() and len(found) == 49 + len(["stopped"])


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_stopped_by_the_check_named_for_it(
    good: tuple[Night, Shop], defect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, made = good
    check, seed = DEFECTS[defect]
    changed = seed(made)
    for table, rows in changed.items():
        put(night, table, rows)
    if check == "items_age":
        kept = [day for day in made.snapshots["items"] if day <= NIGHT - DAY * 9]
        monkeypatch.setattr("nightrec.raw.ingest_dates", lambda root, kind: kept)
    try:
        found = verdict(night)
        assert found["stopped"], failed(found)
        assert found[check]["severity"] == "stop" and not found[check]["passed"], (found[check], failed(found))
        # Without the audit nothing would stop it: the checks do.
        monkeypatch.setattr(audit, "audit", lambda *_, **__: [])
        assert not verdict(night)["stopped"]
    finally:
        for table in changed:
            put(night, table, made.tables[table])


def test_without_the_audit_a_defect_is_served(good: tuple[Night, Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    night, made = good
    changed = swapped("user", "u0001", K, lambda made: "nowhere")(made)
    for table, rows in changed.items():
        put(night, table, rows)
    try:
        assert verdict(night)["stopped"]
        with pytest.raises(AuditRefused, match="known_items"):
            night.run("published_topk", published_topk.run)
        monkeypatch.setattr(audit, "audit", lambda *_, **__: [])
        assert not verdict(night)["stopped"]
        night.run("published_topk", published_topk.run)
        rows = arrow(night.store.warehouse, PUBLISHED_TOPK, {"list_key": "u0001"}).to_pylist()
        assert rows[0]["items"][-1]["item_id"] == "nowhere"
    finally:
        for table in changed:
            put(night, table, made.tables[table])
