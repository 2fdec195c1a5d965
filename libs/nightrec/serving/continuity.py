"""Checks of tonight's lists, scores and catalogue against those of earlier nights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from statistics import median
from typing import Any

from nightrec.config import Audit
from nightrec.serving.trailing import LEAST_NIGHTS, Past, Row, absent, beyond, dropped, note, on_the_way, risen, row

# Lists below which shares of them are chance.
LEAST_LISTS = 20
# Lists of last night that an item must have stood on before its absence is more than chance.
_LISTED = 5

Found = Mapping[str, Any]


def checks(found: Found, past: Past, run_date: date, limits: Audit) -> list[Row]:
    """From the figures of `audit.list_figures` and `item_figures`, and what earlier nights left."""
    return [
        catalogue_size(found, past, run_date, limits),
        users_lost(found, limits),
        unknown_users(found, past, limits),
        churn("quiet_churn", "users without news", found, past, run_date, limits.quiet_churn),
        churn("churn", "all users", found, past, run_date, limits.churn),
        *score_drift(found, past, limits),
        one_item(found, past, limits),
        popular_items(found, past, limits),
    ]


def catalogue_size(found: Found, past: Past, run_date: date, limits: Audit) -> Row:
    """Items in the catalogue: those that were there on the same days of the week."""
    history = {
        night.date: night.figures["catalogue_size"]
        for night in past.nights
        if not math.isnan(night.figures.get("catalogue_size", math.nan))
    }
    return dropped(
        "catalogue_size", found["in_catalogue"], history, run_date, limits.catalogue_drop, "items are in the catalogue"
    )


def users_lost(found: Found, limits: Audit) -> Row:
    """Users who had a list in the night before and have none."""
    kept, lost = found["kept"], found["lost"]
    if not kept + lost:
        return absent("users_lost", "no earlier night has lists of users")
    detail = f"{lost:,} of {kept + lost:,} users with a list in the night before have none"
    share = lost / (kept + lost)
    # So few may all be one family's.
    sure = share if kept + lost >= LEAST_LISTS else min(share, limits.users_lost[1])
    return beyond("users_lost", share, limits.users_lost, detail, sure=sure)


def unknown_users(found: Found, past: Past, limits: Audit) -> Row:
    """Users with events tonight and none before."""
    return risen(
        "unknown_users", found["newcomers"], found["active"], past.usual("unknown_users"), limits.unknown_users,
        "users who never came before",
    )  # fmt: skip


def churn(name: str, whose: str, found: Found, past: Past, run_date: date, levels: tuple[float, float]) -> Row:
    """The share of the items that changed in the lists of some users, where settings and models are the same."""
    lists, mean, spread = (found[f"{name}_{figure}"] for figure in ("lists", "mean", "spread"))
    reference = past.reference(run_date)
    if not lists or not reference:
        return absent(name, f"no list of {whose} is comparable with one of the night before")
    told = f"{mean:.1%} of the items in {lists:,} lists of {whose} changed since {reference.date}"
    if reference.settings != past.settings:
        # Its figure is no measure of usual nights.
        return absent(name, f"{told}; settings or models changed too")
    error = (spread or 0.0) / math.sqrt(lists) if lists >= LEAST_LISTS else 1.0
    return on_the_way(name, mean, error, past.usual(name, alike=True), levels, told)


def score_drift(found: Found, past: Past, limits: Audit) -> list[Row]:
    """How far the mean of the ranker's scores lies from that of earlier nights with the same settings and models."""
    if not found["scores"]:
        nothing = "no list has a ranker's score"
        return [absent(name, nothing) for name in ("score_drift", "score_mean", "score_spread_usual")]
    mean, spread = found["score_mean"], found["score_deviation"]
    kept = [
        note("score_mean", mean, f"the mean of {found['scores']:,} scores"),
        note("score_spread_usual", spread, "the standard deviation of a score"),
    ]
    means, spreads = past.usual("score_mean", alike=True), past.usual("score_spread_usual", alike=True)
    told = f"the mean of {found['scores']:,} scores is {mean:.4g}, their standard deviation {spread:.4g}"
    if len(means) < LEAST_NIGHTS:
        missing = f"{len(means)} of the {LEAST_NIGHTS} earlier nights with these settings and models are there"
        return [note("score_drift", 0.0, f"{told}; {missing}"), *kept]
    drift = abs(mean - median(means)) / max(median(spreads), 1e-6)
    few = found["scored_lists"] < LEAST_LISTS
    detail = f"{told}; {median(means):.4g} and {median(spreads):.4g} are usual"
    sure = min(drift, limits.score_drift[0]) if few else drift
    return [beyond("score_drift", drift, limits.score_drift, detail, sure=sure), *kept]


def one_item(found: Found, past: Past, limits: Audit) -> Row:
    """The share of users' lists that hold the item which most of them hold; picks by hand apart."""
    lists, most = found["exists_user"], found["most_lists"] or 0
    if not lists:
        return absent("one_item", "no user has a list")
    share = most / lists
    told = f"item {found['most_listed']} is on {most:,} of {lists:,} users' lists" if most else "no item is on any"
    error = math.sqrt(share * (1 - share) / lists) if lists >= LEAST_LISTS else 1.0
    return on_the_way("one_item", share, error, past.usual("one_item"), limits.one_item, told)


def popular_items(found: Found, past: Past, limits: Audit) -> Row:
    """An available item that stood on many users' lists in the night before, and is on no list at all tonight.

    With other settings or models that may be meant: a warning.
    """
    before, gone = found["kept"] + found["lost"], found["gone_lists"] or 0
    if not before:
        return absent("popular_items", "no earlier night has lists of users")
    limit = max(limits.popular_share * before, _LISTED)
    detail = f"item {found['gone_item']} was on {gone:,} of {before:,} users' lists and is on none" if gone else "none"
    severity = "stop" if past.nights and past.nights[-1].settings == past.settings else "warn"
    return row("popular_items", passed=gone < limit, found=gone, limit=limit, detail=detail, severity=severity)
