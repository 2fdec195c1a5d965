"""What nobody can go back to any more is removed: old nights' rows, and files that no version of the window holds.

The window is the last retention.nights published nights (past.undo). A night of it can be served again, compared,
and built again from its manifest: its partitions, its models and every version that its manifest names stay. Exports
stay too: they belong to those who read them, and a new sink needs them from the first on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.past.undo import Publication, publications, way_back, window
from nightrec.store import Store, arrow, exists, partitions, version
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    CANDIDATES,
    CLEAN_EVENTS,
    ITEM_PROFILES,
    MANIFESTS,
    NIGHT_MODELS,
    PUBLISHED_TOPK,
    RANKED_TOPK,
    SHORTFALLS,
    TABLES,
    USER_EMBEDDINGS,
    USER_PROFILES,
)

# Kept by night and large. Audits, outcomes and books are small, and what later nights are judged by.
BY_NIGHT = (
    ITEM_PROFILES, USER_PROFILES, ALS_USER_FACTORS, USER_EMBEDDINGS, CANDIDATES, RANKED_TOPK, SHORTFALLS, MANIFESTS,
)  # fmt: skip


@dataclass(frozen=True)
class CleanedUp:
    """Nights before `before` lost `partitions` of the tables kept by night; `files` that no kept version holds went."""

    before: date
    partitions: int
    files: int


def clean_up(store: Store, config: Config, night: date, keep_nights: int | None = None) -> CleanedUp | None:
    """Remove what the window of `night` does not need; None where fewer nights are published than it holds.

    `keep_nights` may widen the window. Raises UsageError where it would narrow it.
    """
    nights = keep_nights or config.retention.nights
    if nights < config.retention.nights:
        raise UsageError(
            f"--keep-nights {nights}: the window is {config.retention.nights} nights (retention.nights), and what it "
            "needs is not removed; set retention.nights lower first"
        )
    kept = [each for each in window(publications(store.warehouse), nights + 1) if each.night <= night]
    if len(kept) <= nights:
        return None
    kept = kept[:nights]
    before = oldest_needed(store.warehouse, config, night, kept)
    removed = 0
    for table in BY_NIGHT:
        old = [part for part in partitions(store.warehouse, table) if part["run_date"] < before.isoformat()]
        removed += len(old)
        if old:
            store.drop(table, "run_date", before)
    used = {each.als_model for each in kept} | {
        row["als_model"] for row in arrow(store.warehouse, NIGHT_MODELS).to_pylist() if row["run_date"] >= before
    }
    if back := way_back(store.warehouse, date.max):
        used.add(back.als_model)
    factors = partitions(store.warehouse, ALS_ITEM_FACTORS)
    used |= {max((part["as_of_date"], part["model_id"]) for part in factors)[1]} if factors else set()
    old = [p for p in factors if p["as_of_date"] < before.isoformat() and p["model_id"] not in used]
    removed += len(old)
    if old:
        store.drop(ALS_ITEM_FACTORS, "as_of_date", before, {"model_id": sorted(used)})
    pinned = versions(arrow(store.warehouse, MANIFESTS).to_pylist())
    files = 0
    for table in TABLES:
        if exists(store.warehouse, table):
            now = version(store.warehouse, table)
            # From what the oldest night of the window found served: building it again begins with that. Nothing was
            # published by a table's first commit, version 0, which creates it.
            first = min(each.version for each in kept) - 1 if table is PUBLISHED_TOPK else now
            files += store.vacuum(table, sorted({*range(first, now + 1), *pinned.get(table.name, ())}))
    return CleanedUp(before, removed, files)


def oldest_needed(warehouse: str, config: Config, night: date, kept: list[Publication]) -> date:
    """The first night whose rows stay: of the window, of lists that events may still name, of a training under way."""
    arrived = [part["ingest_date"] for part in partitions(warehouse, CLEAN_EVENTS)]
    cuts = config.training_cuts(night, date.fromisoformat(min(arrived)) if arrived else night)
    lists = night - timedelta(days=config.lists.attribution_days)
    return min(*(each.night for each in kept), lists, *cuts)


def versions(manifests: list[dict[str, Any]]) -> dict[str, set[int]]:
    """Of each table the versions that manifests name."""
    known, found = {table.name for table in TABLES}, dict[str, set[int]]()
    for manifest in manifests:
        for cell in [*manifest["inputs"], *manifest["outputs"]]:
            if cell["name"] in known and cell["version"] >= 0:
                found.setdefault(cell["name"], set()).add(cell["version"])
    return found
