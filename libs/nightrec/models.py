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
from nightrec.past.undo import way_back
from nightrec.store import Store, arrow, partitions
from nightrec.tables import ALS_ITEM_FACTORS, CHAMPIONS, NIGHT_MODELS, RANKER_MODELS

_TABLES = {"als": ALS_ITEM_FACTORS, "ranker": RANKER_MODELS}
Pair = tuple[str, str]  # item factors and ranker


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


def trained(warehouse: str, kind: str, as_of: date) -> dict[str, date]:
    """Every committed model of a kind (als or ranker) trained not after a date, oldest first, with that date."""
    known = sorted((p["as_of_date"], p["model_id"]) for p in partitions(warehouse, _TABLES[kind]))
    return {model: date.fromisoformat(day) for day, model in known if day <= as_of.isoformat()}


def newest(warehouse: str, kind: str, as_of: date) -> str | None:
    """Id of the latest committed model of a kind not after a date; None where there is none."""
    return next(reversed(trained(warehouse, kind, as_of)), None)


def champions(warehouse: str, until: date) -> list[dict[str, Any]]:
    """The rows of champions up to a night, oldest first.

    Where somebody went back to the lists of an earlier night, the rows of the nights left behind do not count: in their
    place stands one by which that night's models serve again, and those trained since are barred.
    """
    found: list[dict[str, Any]] = arrow(warehouse, CHAMPIONS).to_pylist()
    rows = sorted((row for row in found if row["run_date"] <= until), key=lambda row: row["run_date"])
    back = way_back(warehouse, until)
    if back is None:
        return rows
    pair = {"als": back.als_model, "ranker": back.ranker_model}
    barred = []
    for kind, model in pair.items():
        known = trained(warehouse, kind, back.left_behind)
        barred += [other for other, day in known.items() if day > known.get(model, date.max)]
    restored = {
        "run_date": back.night, "als_model": back.als_model, "ranker_model": back.ranker_model,
        "verdict": "reinstated", "reason": f"the lists of {back.night} were taken back", "barred": barred,
        "challenger_als_model": None, "challenger_ranker_model": None,
    }  # fmt: skip
    before = [row for row in rows if row["run_date"] <= back.night]
    return [*before, restored, *(row for row in rows if row["run_date"] > back.left_behind)]


def champion(warehouse: str, night: date) -> Pair | None:
    """The models that serve a night: those of the last row of champions up to it; None where a model of it is gone."""
    rows = champions(warehouse, night)
    if not rows:
        return None
    pair = rows[-1]["als_model"], rows[-1]["ranker_model"]
    known = (trained(warehouse, kind, night) for kind in _TABLES)
    return pair if all(model in models for model, models in zip(pair, known, strict=True)) else None


def is_left_behind(warehouse: str, night: date) -> bool:
    """Whether somebody went back from this night's lists, or later ones, to those of a night before it."""
    back = way_back(warehouse, night)
    return back is not None and night <= back.left_behind


def ranker_row(warehouse: str, ranker: str) -> dict[str, Any]:
    """The row of ranker_models for an id. Raises UsageError where that ranker was never trained."""
    rows: list[dict[str, Any]] = arrow(warehouse, RANKER_MODELS, {"model_id": ranker}).to_pylist()
    if not rows:
        known = sorted(p["model_id"] for p in partitions(warehouse, RANKER_MODELS))
        raise UsageError(f"no ranker {ranker}; trained: {', '.join(known) or 'none'}")
    return rows[0]


def pinned(store: Store, config: Config, night: date, als: str | None, ranker: str | None) -> dict[str, str]:
    """The models of a night as a row of night_models: what is named, else what was pinned before, else the champion,
    else the newest. What was pinned for a night that was left behind (is_left_behind) does not count.

    Naming a model for a night pinned to another one pins it anew. Raises UsageError where there is no model yet.
    """
    rows = arrow(store.warehouse, NIGHT_MODELS, {"run_date": night}).to_pylist()
    before: dict[str, str] = rows[0] if rows else {}
    kept = {} if is_left_behind(store.warehouse, night) else before
    als, ranker = als or kept.get("als_model"), ranker or kept.get("ranker_model")
    serving = None if als and ranker else champion(store.warehouse, night)
    row = {
        "als_model": als or (serving[0] if serving else newest(store.warehouse, "als", night)),
        "ranker_model": ranker or (serving[1] if serving else newest(store.warehouse, "ranker", night)),
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
