"""When a stage counts as done: its manifest is there, and what it was made from is what lies there now."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from nightrec import runner
from nightrec.config import Als, Audit, Config, Retention
from nightrec.errors import UsageError
from nightrec.night import Night
from nightrec.past import manifest
from nightrec.past.pieces import days, spans
from nightrec.pipeline import NIGHT
from nightrec.store import arrow
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    AUDIT_RESULTS,
    CLEAN_EVENTS,
    ITEM_PROFILES,
    LEDGER,
    MANIFESTS,
    NIGHT_MODELS,
    USER_PROFILES,
)

MONDAY, TUESDAY = dt.date(2026, 3, 9), dt.date(2026, 3, 10)
Change = Callable[[Night], object]


def event(day: dt.date, user: str = "u") -> dict[str, Any]:
    return {
        "ingest_date": day, "event_key": f"{day} {user}", "user_id": user, "item_id": "i", "event_type": "view",
        "event_ts": dt.datetime(2026, 3, 1, tzinfo=dt.UTC), "event_date": dt.date(2026, 3, 1), "weight": 1.0,
        "is_late": False,
    }  # fmt: skip


def profile(night: dt.date, item: str = "i") -> dict[str, Any]:
    counts = dict.fromkeys(("event_count", "user_count", "recent_user_count", "repeat_user_count"), 0)
    return {
        "run_date": night, "item_id": item, "title": item, "categories": [], "tags": [], "in_catalogue": True,
        "is_available": True, **counts, "popularity_share": 0.0, "window_user_counts": [], "weekday_user_days": [],
        "text": item, "text_hash": item,
    }  # fmt: skip


def factors(night: dt.date, model: str) -> dict[str, Any]:
    return {"run_date": night, "als_model": model, "user_id": "u", "factors": [1.0]}


# Jobs without Spark that read and write what the real ones do.
def clean(night: Night) -> None:
    night.store.put(CLEAN_EVENTS, [event(night.date)], {"ingest_date": night.date})
    for day in (MONDAY, TUESDAY):
        night.book("files", 1, ingest_date=day)


def items(night: Night) -> None:
    night.events()
    night.store.put(ITEM_PROFILES, [profile(night.date)], {"run_date": night.date})


def users(night: Night) -> None:
    night.events()
    night.read(ITEM_PROFILES)
    night.store.put(USER_PROFILES, [], {"run_date": night.date})


def solve(night: Night) -> None:
    model = night.als_model
    night.read(ALS_ITEM_FACTORS, {"model_id": model})
    night.events()
    where = {"run_date": night.date, "als_model": model}
    night.store.put(ALS_USER_FACTORS, [factors(night.date, model)], where)


def quiet(night: Night) -> None:
    pass


JOBS = {"clean_events": clean, "item_profiles": items, "user_profiles": users, "als_user_factors": solve}


def log(config: Config, day: dt.date, text: str = "{}\n", kind: str = "events", name: str = "part-0.jsonl") -> Path:
    file = Path(config.paths.raw, kind, f"ingest_date={day}", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def done(night: Night) -> Night:
    """A night of which every stage has committed."""
    for day in (MONDAY, TUESDAY):
        log(night.config, day)
    log(night.config, MONDAY, kind="items")
    key = {"as_of_date": MONDAY, "model_id": "als-1"}
    night.store.put(ALS_ITEM_FACTORS, [{**key, "item_id": "i", "factors": [1.0]}], key)
    named = Night(night.spark, night.config, TUESDAY, "als-1", "ranker-1", night.store)
    for stage in NIGHT:
        named.run(stage.name, JOBS.get(stage.name, quiet))
    return Night(night.spark, night.config, TUESDAY, store=night.store)


def standing(night: Night, **named: str) -> tuple[str, str]:
    """The stage that a run goes on with, and why."""
    found = runner.standing(night.asked, night.date, named)
    return found.following, found.why


def changed(night: Night, **sections: Any) -> Night:
    return Night(night.spark, night.config.model_copy(update=sections), night.date, store=night.store)


def test_a_manifest_says_what_was_read_and_written(done: Night) -> None:
    rows = {row["stage"]: row for row in arrow(done.store.warehouse, MANIFESTS, {"run_date": TUESDAY}).to_pylist()}
    assert set(rows) == {stage.name for stage in NIGHT}
    row = rows["als_user_factors"]
    assert (row["run_id"], row["is_replay"], row["code"]) == ("test", False, manifest.code())
    assert row["models"] == [("als_model", "als-1")] and rows["item_profiles"]["models"] == []
    assert dict(row["seeds"]) == {"als.seed": 17, "ranker.seed": 17}
    assert dict(row["block_counts"]) == {"als.blocks": 8, "horovod.processes": 2, "spark.partitions": 2}
    read = {cell["name"]: (json.loads(cell["part"]), cell["rows"], cell["version"]) for cell in row["inputs"]}
    assert read == {
        "als_item_factors": ({"model_id": ["als-1"]}, 1, 1),
        "clean_events": ({"ingest_date": ["..2026-03-10"]}, 1, 1),
    }
    wrote = {cell["name"]: (json.loads(cell["part"]), cell["rows"]) for cell in row["outputs"]}
    assert wrote == {
        "als_user_factors": ({"als_model": ["als-1"], "run_date": ["2026-03-10"]}, 1),
        "night_models": ({"run_date": ["2026-03-10"]}, 1),
    }
    [raw] = [cell for cell in rows["clean_events"]["inputs"] if cell["name"] == "raw events"]
    assert json.loads(raw["part"]) == {"ingest_date": ["2026-03-09..2026-03-10"]}
    # the last commit of its stage: the ledger's is an earlier one
    assert json.loads(row["settings"])["als"]["seed"] == 17 and "paths" not in json.loads(row["settings"])
    assert arrow(done.store.warehouse, LEDGER, {"stage": "als_user_factors"}).num_rows


def test_a_night_that_is_done_stays_so(done: Night) -> None:
    assert standing(done) == ("", "")
    # what says nothing of the night: other days' files, partitions, limits of going back, and logs that were removed
    log(done.config, dt.date(2026, 3, 11))
    done.store.put(CLEAN_EVENTS, [event(dt.date(2026, 3, 11))], {"ingest_date": dt.date(2026, 3, 11)})
    done.store.put(ITEM_PROFILES, [profile(MONDAY)], {"run_date": MONDAY})
    Path(done.config.paths.raw, "events", f"ingest_date={MONDAY}", "part-0.jsonl").unlink()
    Path(done.config.paths.raw, "events", f"ingest_date={MONDAY}").rmdir()
    assert standing(changed(done, retention=Retention(nights=3))) == ("", "")
    assert standing(done, als_model="als-1") == ("", "")


CHANGES: dict[str, tuple[Change, str, str]] = {
    "a file of the night has changed": (
        lambda night: log(night.config, TUESDAY, "{}\n{}\n"), "clean_events", "raw events of 2026-03-10 have changed",
    ),
    "a file of the night was touched": (
        lambda night: os.utime(log(night.config, TUESDAY), ns=(1, 1)), "clean_events", "raw events of 2026-03-10",
    ),
    "another file has come": (
        lambda night: log(night.config, TUESDAY, name="part-1.jsonl"), "clean_events", "raw events of 2026-03-10",
    ),
    "another file of an earlier date has come": (
        lambda night: log(night.config, MONDAY, name="part-1.jsonl"), "clean_events", "more raw events of 2026-03-09",
    ),
    "an earlier date has come": (
        lambda night: log(night.config, dt.date(2026, 3, 7)), "clean_events", "raw events of another ingest date",
    ),
    "a later catalogue has come": (
        lambda night: log(night.config, TUESDAY, kind="items"), "item_profiles", "raw items of 2026-03-10 have come",
    ),
    "events were cleaned anew": (clean, "clean_events", "clean_events was written anew"),
    "earlier events were cleaned anew": (
        lambda night: night.store.put(CLEAN_EVENTS, [event(MONDAY)], {"ingest_date": MONDAY}),
        "item_profiles", "clean_events has changed since it read it",
    ),
    "a table in the middle was written anew": (items, "item_profiles", "item_profiles was written anew"),
    "the model was trained anew": (
        lambda night: night.store.put(
            ALS_ITEM_FACTORS,
            [{"as_of_date": MONDAY, "model_id": "als-1", "item_id": "i", "factors": [2.0]}],
            {"as_of_date": MONDAY, "model_id": "als-1"},
        ),
        "als_user_factors", "als_item_factors has changed",
    ),
    "the night was pinned anew": (
        lambda night: night.store.put(
            NIGHT_MODELS,
            [{"run_date": TUESDAY, "als_model": "als-1", "ranker_model": "other", "encoder": "e"}],
            {"run_date": TUESDAY},
        ),
        "als_user_factors", "night_models was written anew",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_stage_is_done_again_where_what_it_was_made_from_has_changed(done: Night, name: str) -> None:
    change, following, why = CHANGES[name]
    change(done)
    found = standing(done)
    assert found[0] == following and why in found[1]


def test_settings_models_and_code(done: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    assert standing(changed(done, als=Als(rank=7))) == ("clean_events", "its settings have changed")
    # limits are what a night is judged by, not what it is made from
    assert standing(changed(done, audit=Audit(min_user_share=0.5))) == ("audit", "its settings have changed")
    assert standing(done, als_model="als-2") == ("als_user_factors", "it is asked for with als-2")
    since = runner.standing(done.asked, done.date, {}, "audit")
    assert (since.following, since.done[-1]) == ("audit", "ranked_topk")
    with pytest.raises(UsageError, match="--from lists: a night's stages are clean_events, item_profiles"):
        runner.standing(done.asked, done.date, {}, "lists")
    code = manifest.code()
    monkeypatch.setattr(manifest, "code", lambda: "another")
    assert standing(done) == ("clean_events", f"nightrec was {code} then and is another now")


def test_what_is_not_the_night_leaves_no_manifest(done: Night, spark: SparkSession) -> None:
    before = arrow(done.store.warehouse, MANIFESTS).num_rows
    done.deeper(100).run("audit", quiet)
    seen = Night(spark, done.config, TUESDAY, store=done.store, views={AUDIT_RESULTS.name: lambda frame: frame})
    seen.run("audit", quiet)
    with pytest.raises(ValueError, match="no"):
        done.run("audit", lambda night: int("no"))
    assert arrow(done.store.warehouse, MANIFESTS).num_rows == before


def test_days_as_ranges() -> None:
    text = spans([TUESDAY, MONDAY, dt.date(2026, 3, 1), TUESDAY])
    assert text == ["2026-03-01", "2026-03-09..2026-03-10"]
    assert days(text) == [dt.date(2026, 3, 1), MONDAY, TUESDAY] and spans([]) == []
