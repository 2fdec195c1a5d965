"""One good night; each check turned red by one bad row of it."""

from __future__ import annotations

import copy
import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import pytest
from test_topk import fingerprint

from nightrec.config import Audit
from nightrec.errors import AuditRefused
from nightrec.serving.audit import audit
from nightrec.serving.verdict import Rules, checks, content_row, refuse, require_audited
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES, RANKED_TOPK, SHORTFALLS, USER_PROFILES

NIGHT = dt.date(2026, 3, 10)
K = 2
RULES = Rules(K, repeats_allowed=False, limits=Audit(min_user_share=0.7, min_catalogue_share=0.5, min_score_spread=0.1))
Night = dict[Any, list[dict[str, Any]]]


def ranked(kind: str, key: str, *items: str) -> list[dict[str, Any]]:
    return [
        {
            "run_date": NIGHT,
            "list_kind": kind,
            "list_key": key,
            "list_id": fingerprint(kind, key, *items),
            "rank": n,
            "item_id": item,
            "score": 1 / n,
            "source": "als",
            "reason": "-",
        }
        for n, item in enumerate(items, 1)
    ]


def short(kind: str, key: str, found: int) -> dict[str, Any]:
    return {"run_date": NIGHT, "list_kind": kind, "list_key": key, "wanted": K, "found": found, "cause": "-"}


def user(key: str, **values: Any) -> dict[str, Any]:
    return {"user_id": key, "event_count": 1, "segment": "s", **values}


USERS = [f"u{n}" for n in range(20)]
GOOD: Night = {
    RANKED_TOPK: [
        *(row for key in USERS for row in ranked("user", key, "a", "b")),
        *ranked("user", "few", "d"),
        *ranked("segment", "s", "a", "b"),
        *(
            row
            for key, items in {"a": "bc", "b": "ad", "c": "ab", "d": "ab"}.items()
            for row in ranked("item", key, *items)
        ),
        *ranked("everyone", "everyone", "a", "b"),
    ],
    SHORTFALLS: [
        short("user", "few", 1),
        short("user", "none", 0),  # no item is left for this user: recorded, so covered
        short("item", "out", 0),
    ],
    ITEM_PROFILES: [
        *({"item_id": item} for item in "abcd"),
        {"item_id": "out", "is_available": False},
        {"item_id": "gone", "in_catalogue": False, "is_available": False},
    ],
    USER_PROFILES: [
        *(user(key) for key in USERS if key != "u8"),
        user("u8", blocked_items=["d"]),
        user("few", blocked_items=["a", "b"]),
        user("none", blocked_items=["a", "b", "c", "d"]),
        user("idle", is_eligible=False, segment="of nobody eligible"),
    ],
    CLEAN_EVENTS: [
        {"user_id": "u7", "item_id": "c", "event_type": "dislike"},
        {"user_id": "u7", "item_id": "a", "event_type": "impression"},  # shown is not seen
        {"user_id": "few", "item_id": "c", "event_type": "view"},
        {"user_id": "few", "item_id": "c", "event_type": "view"},
    ],
}


def run(rows: Any, night: Night, rules: Rules = RULES) -> dict[str, dict[str, Any]]:
    tables = (RANKED_TOPK, SHORTFALLS, ITEM_PROFILES, USER_PROFILES, CLEAN_EVENTS)
    results = audit(*(rows(table, night[table]) for table in tables), rules=rules, run_date=NIGHT)
    assert len({row["check_name"] for row in results}) == len(results)
    return {row["check_name"]: row for row in results}


def red(results: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, row in results.items() if not row["passed"]}


def line(night: Night, kind: str, key: str, rank: int) -> dict[str, Any]:
    found = [row for row in night[RANKED_TOPK] if (row["list_kind"], row["list_key"], row["rank"]) == (kind, key, rank)]
    return found[0]


def swap(night: Night, kind: str, key: str, *items: str) -> None:
    """Replace a list by a well-formed one of other items."""
    night[RANKED_TOPK] = [row for row in night[RANKED_TOPK] if (row["list_kind"], row["list_key"]) != (kind, key)]
    night[RANKED_TOPK] += ranked(kind, key, *items)


def change(kind: str, key: str, place: int, /, **values: Any) -> Callable[[Night], None]:
    return lambda night: line(night, kind, key, place).update(values)


def drop(table: Any, **values: Any) -> Callable[[Night], None]:
    def without(night: Night) -> None:
        night[table] = [row for row in night[table] if not values.items() <= row.items()]

    return without


def alike(night: Night) -> None:
    for row in night[RANKED_TOPK]:
        row["score"] = 0.5


def unshown(night: Night) -> None:
    night[ITEM_PROFILES] += [{"item_id": f"new {n}", "in_catalogue": False} for n in range(5)]


def without_everyone(night: Night) -> None:
    drop(RANKED_TOPK, list_kind="everyone")(night)
    night[SHORTFALLS].append(short("everyone", "everyone", 0))


def without_many_users(night: Night) -> None:
    for key in USERS[:7]:
        drop(RANKED_TOPK, list_kind="user", list_key=key)(night)


# How a fault of one row gets in, the check it turns red, and whom the check may name. Faults of one night touch
# different lists, so that one query shows that each is found and none is taken for another: `found` counts them.
Fault = tuple[Callable[[Night], None], str, str]
LISTS: dict[str, Fault] = {
    "a list of K-1 items": (lambda n: swap(n, "user", "u0", "a"), "list_length", "user u0"),
    "a list of K+1 items": (lambda n: swap(n, "user", "u1", "a", "b", "d"), "list_length", "user u1"),
    "a shortfall that says another length": (lambda n: n[SHORTFALLS][0].update(found=0), "list_length", "user few"),
    "a shortfall of a full list": (lambda n: n[SHORTFALLS].append(short("user", "u2", 1)), "list_length", "user u2"),
    "an item's list missing without a word": (
        drop(RANKED_TOPK, list_kind="item", list_key="d"),
        "list_length",
        "item d",
    ),
    "an item twice": (lambda n: swap(n, "user", "u3", "a", "a"), "unique_items", "user u3"),
    "a gap in the ranks": (change("user", "u4", 2, rank=3), "ranks", "user u4"),
    "a score that is no number": (change("user", "u5", 1, score=math.nan), "finite_scores", "user u5"),
    "an infinite score": (change("item", "c", 1, score=math.inf), "finite_scores", "item c"),
    "a score above the one before": (change("segment", "s", 2, score=1.5), "score_order", "segment s"),
    "a score below 0": (change("user", "u10", 2, score=-0.1), "score_range", "user u10"),
    "a foreign list_id": (change("user", "u6", 2, list_id="0" * 16), "list_ids", "user u6"),
    "an item acted on": (lambda n: swap(n, "user", "u7", "a", "c"), "not_seen", "user u7"),
    "a blocked item": (lambda n: swap(n, "user", "u8", "a", "d"), "not_blocked", "user u8"),
    "an item similar to itself": (lambda n: swap(n, "item", "a", "b", "a"), "not_itself", "item a"),
    "a list for an idle user": (lambda n: swap(n, "user", "idle", "a", "b"), "eligible_only", "user idle"),
}
ITEMS: dict[str, Fault] = {
    "an unavailable item": (lambda n: swap(n, "user", "u0", "a", "out"), "available_items", "item out"),
    "an unknown item": (lambda n: swap(n, "user", "u1", "a", "x"), "known_items", "item x"),
    "scores that are all alike": (alike, "score_spread", "0.5 to 0.5"),
    "a kind missing": (without_everyone, "list_kinds", "everyone"),
}
SHARES: dict[str, Fault] = {
    "seven of 22 users without a list": (without_many_users, "user_share", "14 of 22"),
    "a shortfall though two items are left": (
        lambda n: (swap(n, "user", "u9", "c"), n[SHORTFALLS].append(short("user", "u9", 1)))[0],
        "needless_shortfalls",
        "user u9",
    ),
}
CATALOGUE: dict[str, Fault] = {"a catalogue of which little is shown": (unshown, "catalogue_share", "4 of 9")}
SHARES_FOUND = {"score_spread": 0.0, "user_share": 14 / 22, "catalogue_share": 4 / 9}


def test_a_good_night_passes(rows):
    results = run(rows, GOOD)
    assert red(results) == set()
    refuse(list(results.values()), NIGHT)
    assert results["user_share"]["found"] == 1.0 and "22 of 22" in results["user_share"]["detail"]
    assert results["catalogue_share"]["found"] == 1.0
    assert results["score_spread"]["found"] == 0.5


@pytest.mark.parametrize("faults", [LISTS, ITEMS, SHARES], ids=["lists", "items", "shares"])
def test_every_fault_turns_its_check_red_and_no_other(rows, faults):
    night = copy.deepcopy(GOOD)
    for spoil, _, _ in faults.values():
        spoil(night)
    results = run(rows, night)
    assert red(results) == {check for _, check, _ in faults.values()}
    for check in red(results):
        examples = [example for _, name, example in faults.values() if name == check]
        assert results[check]["found"] == pytest.approx(SHARES_FOUND.get(check, len(examples)))
        assert any(example in results[check]["detail"] for example in examples)


def test_a_collapsed_catalogue(rows):
    night = copy.deepcopy(GOOD)
    unshown(night)
    results = run(rows, night)
    assert (
        results["catalogue_share"]["found"] == pytest.approx(4 / 9) and "4 of 9" in results["catalogue_share"]["detail"]
    )
    # The five new items were left to show to the two users with a shortfall: a warning while enough others are covered.
    assert red(results) == {"catalogue_share", "needless_shortfalls"}
    assert results["needless_shortfalls"]["severity"] == "warn" and results["needless_shortfalls"]["found"] == 2
    assert results["user_share"]["found"] == pytest.approx(20 / 22)


def test_an_empty_night_is_refused(rows):
    results = run(rows, {**GOOD, RANKED_TOPK: [], SHORTFALLS: []})
    assert {"not_empty", "list_kinds", "user_share", "catalogue_share", "list_length"} == red(results)
    # Not even profiles: still an answer, still refused.
    results = run(rows, {table: [] for table in GOOD})
    assert {"not_empty", "list_kinds"} <= red(results)
    with pytest.raises(AuditRefused, match=r"(?s)may not be published.*\n  not_empty: found 0, limit 1; 0 lists"):
        refuse(list(results.values()), NIGHT)


def test_repeats_and_missing_segments(rows):
    # The list holds an item its user acted on, which is allowed; no user has a segment, so no segment list is missed.
    night = copy.deepcopy(GOOD)
    swap(night, "user", "u7", "a", "c")
    drop(RANKED_TOPK, list_kind="segment")(night)
    for row in night[USER_PROFILES]:
        row["segment"] = None
    # The short list of "few" is needless now: the item seen could come back.
    assert red(run(rows, night, Rules(K, repeats_allowed=True, limits=RULES.limits))) == {"needless_shortfalls"}


def test_every_check_has_a_fault():
    figures = {
        f"{flag}_{kind}": 1 for kind in ("user", "segment", "item", "everyone") for flag in ("exists", "expected")
    }
    names = {
        row["check_name"]
        for row in checks(_Zeros(figures | dict.fromkeys(("covered_example", "best", "worst"))), RULES)
    }
    assert names == {check for faults in (LISTS, ITEMS, SHARES, CATALOGUE) for _, check, _ in faults.values()} | {
        # These are seeded in test_job_audit_defects.py.
        "not_empty", "finite_vectors", "vector_widths", "distinct_users",
    }  # fmt: skip


class _Zeros(dict):  # type: ignore[type-arg]
    def __missing__(self, key: str) -> int:
        return 0


def test_publishing_needs_an_audit_of_this_very_content():
    note = content_row(NIGHT, "f1")
    good = {
        "run_date": NIGHT,
        "check_name": "ranks",
        "severity": "stop",
        "passed": True,
        "found": 0.0,
        "limit": 0.0,
        "detail": "-",
    }
    warned = {**good, "severity": "warn", "passed": False}
    require_audited([good, warned, note], NIGHT, "f1")
    with pytest.raises(AuditRefused, match="never audited"):
        require_audited([], NIGHT, "f1")
    with pytest.raises(AuditRefused, match="written anew"):
        require_audited([good, note], NIGHT, "f2")
    with pytest.raises(AuditRefused, match="ranks: found 0, limit 0"):
        require_audited([{**good, "passed": False}, note], NIGHT, "f1")
