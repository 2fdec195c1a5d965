"""What earlier nights and the inputs themselves left for tonight's audit to compare with. Nothing of it needs Spark."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from nightrec import models, raw
from nightrec.errors import BadInput
from nightrec.serving.trailing import Night as Earlier
from nightrec.serving.trailing import Past
from nightrec.store import arrow, partitions
from nightrec.tables import AUDIT_RESULTS, CLEAN_EVENTS, LEDGER

if TYPE_CHECKING:
    from nightrec.night import Night

SETTINGS = "settings"


def past(night: Night) -> Past:
    """All that the night's audit compares with, nothing of it later than the night."""
    warehouse, root = night.store.warehouse, night.config.paths.raw
    books = lines(arrow(warehouse, LEDGER, {"stage": CLEAN_EVENTS.stage}).to_pylist(), night.date)
    known = {kind: models.trained(warehouse, kind, date.max) for kind in ("als", "ranker")}
    used = {"als": night.als_model, "ranker": night.ranker_model}
    trained = {kind: known[kind][model] for kind, model in used.items() if model in known[kind]}
    inputs = {kind: snapshots(root, kind, night.date) for kind in ("items", "users")}
    arrived = sorted(day for day, fates in books.items() if fates.get("read"))
    return Past(books, audited(night), settings(night), {"events": arrived, **inputs}, trained)


def snapshots(root: str, kind: str, until: date) -> list[date]:
    """Dates of the raw snapshots that are there; none where raw files are gone, as they may be once they are clean."""
    try:
        return [day for day in raw.ingest_dates(root, kind) if day <= until]
    except BadInput:
        return []


def lines(books: Iterable[Mapping[str, Any]], until: date) -> dict[date, dict[str, int]]:
    """Lines by fate of each ingest date up to `until`, from the books of clean_events; robots apart from rejects."""
    found: dict[date, dict[str, int]] = defaultdict(dict)
    for row in books:
        if row["run_date"] <= until:
            fate = "robot" if row["reason"] == "robot" else row["fate"]
            fates = found[row["run_date"]]
            fates[fate] = fates.get(fate, 0) + row["row_count"]
    return dict(found)


def audited(night: Night) -> list[Earlier]:
    """The earlier nights that `audit.trailing_days` names and whose audit let them through, oldest first."""
    warehouse, first = night.store.warehouse, night.date - timedelta(days=night.config.audit.trailing_days)
    known = (date.fromisoformat(part["run_date"]) for part in partitions(warehouse, AUDIT_RESULTS))
    nights = sorted(day for day in known if first <= day < night.date)
    if not nights:
        return []
    found: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for row in arrow(warehouse, AUDIT_RESULTS, {"run_date": nights}).to_pylist():
        found[row["run_date"]].append(row)
    return [
        Earlier(
            day,
            {row["check_name"]: row["found"] for row in found[day]},
            next((row["detail"] for row in found[day] if row["check_name"] == SETTINGS), ""),
        )
        for day in nights
        if all(row["passed"] or row["severity"] != "stop" for row in found[day])
    ]


def settings(night: Night) -> str:
    """Fingerprint of all that lists follow from but data: models and settings; picks by hand apart."""
    sections = {"profiles", "als", "encoder", "candidates", "ranker", "lists"}
    values = night.config.model_dump(mode="json", include=sections)
    del values["candidates"]["editorial"]
    said = json.dumps([values, night.als_model, night.ranker_model], sort_keys=True)
    return f"settings and models {hashlib.sha256(said.encode()).hexdigest()[:16]}"
