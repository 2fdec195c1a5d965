"""A shop's night as it lies in the tables before its audit, and the nights before it: made by hand, without a stage.

`shop(...)` draws one of the wanted size and habits; `write` puts it into a warehouse. Users have a taste that moves a
little from night to night, and more where there is news of them; lists are the best K of what they have not seen.
Import it as `from shop_nights import shop` (tests/ is on the path of every test).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contract_rows import NIGHT, filled

from nightrec.contract import Table
from nightrec.night import Night
from nightrec.past import earlier
from nightrec.serving.trailing import note
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    AUDIT_RESULTS,
    CLEAN_EVENTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    LEDGER,
    NIGHT_MODELS,
    RANKED_TOPK,
    RANKER_MODELS,
    SHORTFALLS,
    USER_EMBEDDINGS,
    USER_PROFILES,
)

DAY = dt.timedelta(days=1)
Row = dict[str, Any]
Tables = dict[Table, list[Row]]


@dataclass
class Shop:
    """The tables of a night by contract, what their rows were drawn from, and how the raw snapshots came."""

    tables: Tables
    k: int
    scores: Any  # users x items, of tonight
    before: Any  # of the night before
    seen: Any  # users x items
    users: list[str]
    items: list[str]
    books: dict[dt.date, dict[str, int]]
    snapshots: dict[str, list[dt.date]] = field(default_factory=dict)
    nights: Sequence[dt.date] = ()

    def lists(self, night: dt.date = NIGHT, available: Iterable[int] | None = None, eligible: Any = None) -> list[Row]:
        """ranked_topk of a night: the users' best K of what is available and not seen, and lists of all other kinds."""
        scores = self.scores if night == NIGHT else self.before
        offered = np.zeros(len(self.items), bool)
        offered[list(range(len(self.items)) if available is None else available)] = True
        masked = np.where(self.seen | ~offered, -np.inf, scores)
        order = np.argsort(-masked, axis=1, kind="stable")[:, : self.k]
        found: list[Row] = []
        for user, name in enumerate(self.users):
            if eligible is None or eligible[user]:
                chosen = [item for item in order[user] if np.isfinite(masked[user, item])]
                shares = [round(float(1 / (1 + np.exp(2 - scores[user, item]))), 6) for item in chosen]
                found += ranked(night, "user", name, [self.items[item] for item in chosen], shares)
        best = [self.items[item] for item in np.flatnonzero(offered)]
        for kind, key in (("segment", "north"), ("segment", "south"), ("everyone", "everyone")):
            found += ranked(night, kind, key, best[: self.k], source="popularity")
        for place, key in enumerate(self.items):
            near = [item for item in (best[place + 1 :] + best[:place])[: self.k + 1] if item != key][: self.k]
            found += ranked(night, "item", key, near, source="text")
        return found


def fingerprint(kind: str, key: str, items: Sequence[str]) -> str:
    """As of topk.list_id."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in (kind, key, *items)).encode()).hexdigest()[:16]


def ranked(
    night: dt.date, kind: str, key: str, items: Sequence[str], scores: Sequence[float] = (), source: str = "als"
) -> list[Row]:
    """The rows of one list."""
    return [
        {
            "run_date": night, "list_kind": kind, "list_key": key, "list_id": fingerprint(kind, key, items), "rank": n,
            "item_id": item, "score": scores[n - 1] if len(scores) else round(1 / n, 6), "source": source,
        }
        for n, item in enumerate(items, 1)
    ]  # fmt: skip


def shop(
    users: int = 60, items: int = 30, k: int = 5, active: float = 0.5, seed: int = 1, days: int = 29,
    week: Sequence[float] = (1, 1, 1, 1, 1, 1, 1), growth: float = 0.0, promotion: float = 1.0, lines: int = 1,
    nights: int = 10, news: float = 0.5, newcomers: float = 0.0, snapshots: int = 1, new_items: int = 0,
    daily: Sequence[int] | None = None, late: float = 0.02, rejected: float = 0.03, robots: float = 0.05,
    values: bool = True, sole: str = "",
) -> Shop:  # fmt: skip
    """A shop on NIGHT. `active`: share of users per day, times `week`'s (Monday first), growing by `growth` a day, and
    tonight times `promotion`; `daily`: users of each day instead. `lines` per active user. `nights` before it were
    audited. `newcomers`: share of the users who only come in the last days. `snapshots`: every so many days; 0: one
    only. `sole`: the one type of all events.
    """
    draw = np.random.default_rng(seed)
    names, ids = [f"u{n:04}" for n in range(users)], [f"i{n:03}" for n in range(items)]
    liking = np.linspace(1.5, -1.5, items)
    taste = liking + draw.normal(0, 0.8, (users, items))
    came = np.where(draw.random(users) < newcomers, draw.integers(days - 5, days, users), 0)
    types, shares = ([sole], [1.0]) if sole else (["view", "click", "purchase"], [0.6, 0.25, 0.15])
    seen = np.zeros((users, items), bool)
    events: list[Row] = []
    books: dict[dt.date, dict[str, int]] = {}
    active_tonight = np.zeros(users, bool)
    for n in range(days):
        day = NIGHT - DAY * (days - 1 - n)
        there = np.flatnonzero(came <= n)
        wanted = active * week[day.weekday()] * (1 + growth) ** (n - days + 1) * (promotion if day == NIGHT else 1)
        count = daily[n] if daily is not None else draw.binomial(len(there), min(wanted, 1))
        who = draw.choice(there, min(count, len(there)), replace=False) if len(there) else []
        for user in who:
            for at in range(lines):
                item = int(min(items - 1 - (0 if day == NIGHT else new_items), draw.exponential(items / 5)))
                kind = str(draw.choice(types, p=shares))
                value = float(draw.lognormal(0.7, 0.5)) if values and kind == "purchase" else None
                shift = DAY if draw.random() < 0.1 else DAY * 0
                events.append({
                    "ingest_date": day, "event_key": f"{day}-{user}-{at}", "user_id": names[user], "item_id": ids[item],
                    "event_type": kind, "event_date": day - shift, "weight": 1.0, "value": value, "is_late": False,
                })
                seen[user, item] = True
                active_tonight[user] |= day == NIGHT
        clean = len(who) * lines
        extra = {name: int(draw.binomial(clean * 2, share / 2)) for name, share in
                 (("late", late), ("rejected", rejected), ("robot", robots), ("duplicate", 0.01))}  # fmt: skip
        late_ones = min(extra.pop("late"), clean)
        files = int(clean + sum(extra.values()) > 0)
        books[day] = {"files": files, "read": clean + sum(extra.values()), "late": late_ones, **extra}
        books[day]["accepted"] = clean - late_ones
    moved = taste + draw.normal(0, 0.12, taste.shape)
    moved[active_tonight] += draw.normal(0, news, (int(active_tonight.sum()), items))
    made = Shop({}, k, moved, taste, seen, names, ids, books)
    made.snapshots = {
        kind: [NIGHT - DAY * ago for ago in range(28, -1, -snapshots)] if snapshots else [NIGHT - DAY * 28]
        for kind in ("items", "users")
    }
    made.nights = [NIGHT - DAY * ago for ago in range(nights, 0, -1)]
    counts = np.bincount([ids.index(event["item_id"]) for event in events], minlength=items)
    distinct = seen.sum(0)
    by_user = dict.fromkeys(names, 0)
    for event in events:
        by_user[event["user_id"]] += 1
    trained = {"as_of_date": NIGHT - DAY * 9}
    vector = [round(float(part), 3) for part in draw.normal(size=4)]
    made.tables = {
        CLEAN_EVENTS: events,
        LEDGER: ledger(books),
        ITEM_PROFILES: [
            {"run_date": NIGHT, "item_id": item, "event_count": int(counts[n]), "user_count": int(distinct[n])}
            for n, item in enumerate(ids)
        ],
        USER_PROFILES: [
            {"run_date": NIGHT, "user_id": name, "event_count": by_user[name], "segment": ("north", "south")[n % 2]}
            for n, name in enumerate(names)
        ],
        ALS_ITEM_FACTORS: [{**trained, "model_id": "als", "item_id": item, "factors": vector} for item in ids],
        ALS_USER_FACTORS: [
            {"run_date": NIGHT, "als_model": "als", "user_id": name, "factors": vector} for name in names
        ],
        ITEM_EMBEDDINGS: [{"encoder": "", "text_hash": item, "vector": vector} for item in ids],
        USER_EMBEDDINGS: [{"run_date": NIGHT, "encoder": "", "user_id": name, "vector": vector} for name in names],
        RANKER_MODELS: [{**trained, "model_id": "ranker", "weights": "w"}],
        NIGHT_MODELS: [{"run_date": NIGHT, "als_model": "als", "ranker_model": "ranker", "encoder": ""}],
        SHORTFALLS: [],
        RANKED_TOPK: made.lists(NIGHT - DAY) + made.lists() if nights else made.lists(),
    }
    short(made)
    return made


def short(made: Shop) -> None:
    """Record the users' lists of fewer than K items, as ranked_topk does."""
    sizes: dict[tuple[str, str], int] = {("user", name): 0 for name in made.users}
    for row in made.tables[RANKED_TOPK]:
        if row["run_date"] == NIGHT:
            key = row["list_kind"], row["list_key"]
            sizes[key] = sizes.get(key, 0) + 1
    made.tables[SHORTFALLS] = [
        {"run_date": NIGHT, "list_kind": kind, "list_key": key, "wanted": made.k, "found": size, "cause": "-"}
        for (kind, key), size in sizes.items()
        if size < made.k
    ]


def ledger(books: dict[dt.date, dict[str, int]]) -> list[Row]:
    """The books of clean_events."""
    return [
        {
            "run_date": day, "stage": "clean_events", "fate": "rejected" if fate == "robot" else fate,
            "reason": fate if fate == "robot" else "broken_line" if fate == "rejected" else "", "row_count": count,
        }
        for day, fates in books.items()
        for fate, count in fates.items()
    ]  # fmt: skip


def write(night: Night, made: Shop, only: Iterable[Table] = ()) -> None:
    """Put the shop's tables, or some of them, into the night's warehouse, over what was there; and its folders."""
    for table in only or made.tables:
        put(night, table, made.tables[table])
    if not only:
        for kind, dates in made.snapshots.items():
            for day in dates:
                (Path(night.config.paths.raw) / kind / f"ingest_date={day}").mkdir(parents=True, exist_ok=True)
        figures(night, made)


def put(night: Night, table: Table, rows: list[Row]) -> None:
    """Rows that name only what matters, in place of all that the table has."""
    encoder = night.config.encoder.id
    night.store.put(table, [filled(table, {**row, "encoder": encoder}) for row in rows], {})


def figures(night: Night, made: Shop) -> None:
    """What the audits of the nights before have left: figures as they are where nothing is wrong."""
    draw, first = np.random.default_rng(3), {}
    for event in made.tables[CLEAN_EVENTS]:
        first.setdefault(event["user_id"], event["ingest_date"])
    people: dict[dt.date, set[str]] = {}
    for event in made.tables[CLEAN_EVENTS]:
        people.setdefault(event["ingest_date"], set()).add(event["user_id"])
    fingerprint = earlier.settings(night)
    scores = [row["score"] for row in made.tables[RANKED_TOPK] if row["list_kind"] == "user"]
    by_item: dict[str, int] = {}
    for row in made.tables[RANKED_TOPK]:
        if row["list_kind"] == "user" and row["run_date"] == NIGHT:
            by_item[row["item_id"]] = by_item.get(row["item_id"], 0) + 1
    rows: list[Row] = []
    for day in made.nights:
        told = {
            "quiet_churn": 0.1 + 0.03 * draw.random(), "churn": 0.25 + 0.05 * draw.random(),
            "one_item": max(by_item.values()) / len(made.users), "catalogue_size": len(made.items),
            "score_mean": float(np.mean(scores)), "score_spread_usual": float(np.std(scores)),
        }  # fmt: skip
        if there := people.get(day):
            told["unknown_users"] = sum(first[user] == day for user in there) / len(there)
        rows += [{"run_date": day, **note(name, figure, "-")} for name, figure in told.items()]
        rows.append({"run_date": day, **note(earlier.SETTINGS, 0, fingerprint)})
    put(night, AUDIT_RESULTS, rows)
