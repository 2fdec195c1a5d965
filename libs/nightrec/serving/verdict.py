"""What the figures of a night say: one row per check, and whether the night may be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from nightrec.config import Audit
from nightrec.errors import AuditRefused
from nightrec.printable import one_line
from nightrec.serving import continuity
from nightrec.serving.trailing import Row, row
from nightrec.tables import LIST_KINDS

# Checks that no list may fail, with what is then wrong with it. `audit.with_flags` holds their conditions.
LIST_RULES = {
    "list_length": "has neither K items nor a shortfall that says how many",
    "unique_items": "holds an item twice",
    "ranks": "has ranks other than 1, 2, ... without gaps",
    "finite_scores": "has a score that is not a finite number",
    "score_range": "has a score below 0",
    "score_order": "has a score above the one before it",
    "list_ids": "has a list_id that is not the fingerprint of its items",
    "not_seen": "holds an item its user has acted on",
    "not_blocked": "holds an item its user has blocked",
    "not_itself": "names its own item as similar",
    "eligible_only": "is for a user who gets no list tonight",
}
# Checks that no item on a list may fail. `audit.item_figures` holds their conditions.
ITEM_RULES = {"known_items": "is not in item_profiles", "available_items": "is not available"}


@dataclass(frozen=True)
class Rules:
    """What tonight's lists are held against: list length `k`, whether seen items may come back, the limits, and how
    many users what is published of all must rest on."""

    k: int
    repeats_allowed: bool
    limits: Audit
    min_users: int = 1


def checks(found: Mapping[str, Any], rules: Rules) -> list[Row]:
    """What is wrong with the lists in themselves: rows of tables.AUDIT_RESULTS, run_date apart, from the figures of
    `audit.list_figures`, `item_figures` and `vector_figures`.

    Without an eligible user every one of them is covered; without a ranker's score there is no spread to hold against
    the limit; without an available item no share of them is on a list.
    """
    limits = rules.limits
    lists = sum(found[f"exists_{kind}"] for kind in LIST_KINDS)
    absent = [kind for kind in LIST_KINDS if found[f"expected_{kind}"] and not found[f"exists_{kind}"]]
    eligible, covered, example = found["expected_user"], found["covered"], found["covered_example"]
    users = f"{covered} of {eligible} eligible users have K items, or a shortfall because fewer were left"
    listed, available, best, worst = (found[name] for name in ("listed", "available", "best", "worst"))
    scored = best is not None
    return [
        _at_least("not_empty", lists, 1, f"{lists} lists"),
        _none("list_kinds", len(absent), f"no list of kind {', '.join(absent)}"),
        *(
            _none(name, found[name], f"{found[f'{name}_example']} {words}")
            for name, words in (LIST_RULES | ITEM_RULES).items()
        ),
        _at_least(
            "user_share",
            covered / eligible if eligible else 1.0,
            limits.min_user_share,
            f"{users}; {example} has neither" if example else users,
        ),
        _at_least(
            "catalogue_share",
            listed / available if available else 0.0,
            limits.min_catalogue_share,
            f"{listed} of {available} available items are on a list",
        ),
        _at_least(
            "score_spread",
            best - worst if scored else limits.min_score_spread,
            limits.min_score_spread,
            f"scores from {worst:g} to {best:g}" if scored else "no list has a ranker's score",
            # A few lists may well be alike.
            severity="stop" if found["scored_lists"] >= continuity.LEAST_LISTS else "warn",
        ),
        _none("finite_vectors", found["broken_vectors"], f"a vector of {found['broken_vector']} is no finite number"),
        _none("vector_widths", found["mixed_vectors"], f"vectors of {found['mixed_vector']} are of several lengths"),
        _none(
            "distinct_users",
            found["distinct_users"],
            f"{found['distinct_users_example']} rests on fewer than {rules.min_users} users",
        ),
        _none(
            "needless_shortfalls",
            found["needless"],
            f"{found['needless_example']} is short although K items were left to show",
            severity="warn",
        ),
    ]


def content_row(run_date: date, content: str) -> Row:
    """The note that says which rows of ranked_topk were audited, by the fingerprint of their files."""
    detail = f"audited the files {content} of ranked_topk"
    return {"run_date": run_date, **_none("content", 0, "", severity="note"), "detail": detail}


def refuse(results: Sequence[Mapping[str, Any]], run_date: date) -> None:
    """Raise AuditRefused with one line per failed check of severity stop; nothing happens where there is none."""
    lines = [
        f"  {one['check_name']}: found {one['found']:g}, limit {one['limit']:g}; {one_line(one['detail'])}"
        for one in results
        if one["severity"] == "stop" and not one["passed"]
    ]
    if lines:
        first = f"ranked_topk of {run_date} may not be published; what was published before stays"
        raise AuditRefused("\n".join([first, *lines]))


def require_audited(results: Sequence[Mapping[str, Any]], run_date: date, content: str) -> None:
    """Raise AuditRefused unless `results` are of an audit of exactly this content of ranked_topk that let it pass."""
    if not results:
        raise AuditRefused(f"ranked_topk of {run_date} was never audited; run the audit of {run_date} first")
    refuse(results, run_date)
    audited = [one["detail"] for one in results if one["check_name"] == "content"]
    if audited != [content_row(run_date, content)["detail"]]:
        raise AuditRefused(
            f"ranked_topk of {run_date} has been written anew since its audit; run the audit of {run_date} again"
        )


def _at_least(name: str, found: float, limit: float, detail: str, *, severity: str = "stop") -> Row:
    """Fails where `found` is below `limit`, or is not a number."""
    return row(name, passed=found >= limit, found=found, limit=limit, detail=detail, severity=severity)


def _none(name: str, found: int, detail: str, *, severity: str = "stop") -> Row:
    """A check that holds where nothing was found; `detail` is for where something was."""
    return row(name, passed=not found, found=found, limit=0, detail=detail if found else "none", severity=severity)
