"""Model ids, and which models one night uses: pinned once, so that no stage of a night reads "latest"."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.store import Store, arrow, partitions
from nightrec.tables import ALS_ITEM_FACTORS, NIGHT_MODELS, RANKER_MODELS
from nightrec.undo import way_back


def model_id(kind: str, as_of: date, settings: BaseModel) -> str:
    """An id that follows from what was asked for: training again with the same settings replaces the same model."""
    digest = hashlib.sha256(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    return f"{kind}-{as_of:%Y%m%d}-{digest}"


def als_model_id(as_of: date, config: Config) -> str:
    """Id of the factorization as of a date."""
    return model_id("als", as_of, config.als)


def ranker_model_id(as_of: date, config: Config) -> str:
    """Id of the ranker trained as of a date."""
    return model_id("ranker", as_of, config.ranker)


def checkpoint(config: Config, model: str) -> Path:
    """The folder of what a training of a model has learned so far; every process reaches it."""
    return Path(config.paths.models) / model / "checkpoint"


def drop_checkpoints(config: Config, model: str) -> None:
    """Once a model is committed: remove its checkpoint, and those of its kind of earlier dates, which nobody will go on
    from."""
    kind, day, _ = model.split("-")
    for folder in Path(config.paths.models).glob(f"{kind}-*/checkpoint"):
        if folder.parent.name.split("-")[1] <= day:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()  # where nothing else is in it


def newest(warehouse: str, kind: str, as_of: date, after: date = date.min) -> str | None:
    """Id of the latest committed model of a kind (als or ranker) as of a date, or a day before it later than `after`;
    None where there is none."""
    table = {"als": ALS_ITEM_FACTORS, "ranker": RANKER_MODELS}[kind]
    known = [
        (p["as_of_date"], p["model_id"])
        for p in partitions(warehouse, table)
        if after < date.fromisoformat(p["as_of_date"]) <= as_of
    ]
    return max(known)[1] if known else None


def current(warehouse: str, kind: str, night: date) -> str | None:
    """Id of the model that a night uses unless told otherwise: the newest, or that of the night somebody went back to.

    That one holds until a model is trained as of a date after those that the way back left behind.
    """
    back = way_back(warehouse, night)
    if back is None:
        return newest(warehouse, kind, night)
    left_behind = max(back.night, back.instead_of or back.night)
    return newest(warehouse, kind, night, left_behind) or {"als": back.als_model, "ranker": back.ranker_model}[kind]


def ranker_row(warehouse: str, ranker: str) -> dict[str, Any]:
    """The row of ranker_models for an id. Raises UsageError where that ranker was never trained."""
    rows: list[dict[str, Any]] = arrow(warehouse, RANKER_MODELS, {"model_id": ranker}).to_pylist()
    if not rows:
        known = sorted(p["model_id"] for p in partitions(warehouse, RANKER_MODELS))
        raise UsageError(f"no ranker {ranker}; trained: {', '.join(known) or 'none'}")
    return rows[0]


def pinned(store: Store, config: Config, night: date, als: str | None, ranker: str | None) -> dict[str, str]:
    """The models of a night as a row of night_models: what was pinned before, else what is named, else the current.

    Naming a model for a night pinned to another one pins it anew. Raises UsageError where there is no model yet.
    """
    rows = arrow(store.warehouse, NIGHT_MODELS, {"run_date": night}).to_pylist()
    before: dict[str, str] = rows[0] if rows else {}
    row = {
        "als_model": als or before.get("als_model") or current(store.warehouse, "als", night),
        "ranker_model": ranker or before.get("ranker_model") or current(store.warehouse, "ranker", night),
        "encoder": config.encoder.id,
    }
    if not row["als_model"] or not row["ranker_model"]:
        missing = "item factors" if not row["als_model"] else "ranker"
        raise UsageError(
            f"no {missing} trained as of {night} or before; run `nightrec train --config ... --date {night}` first"
        )
    if row != {name: before.get(name) for name in row}:
        store.put(NIGHT_MODELS, [{"run_date": night, **row}], {"run_date": night})
    return {name: str(value) for name, value in row.items()}
