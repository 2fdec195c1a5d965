"""What a training's tasks do on past nights that lie before the log begins: what the command does, nothing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from nightrec_jobs import als_item_factors, item_profiles

from nightrec import night as door
from nightrec.config import Config
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES, LEDGER

AS_OF = "2026-03-10"


@pytest.fixture
def toml(config: Config, tmp_path: Path, store: Any, rows: Any, spark: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment whose log begins three days before the training, which asks for two cuts of five days."""
    event = {"ingest_date": dt.date(2026, 3, 7), "event_date": dt.date(2026, 3, 7), "event_type": "view"}
    store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, [{**event, "event_key": "1", "user_id": "u", "item_id": "i"}]))
    store.close()
    monkeypatch.setattr(door, "die_with_parent", lambda: None)
    monkeypatch.setattr(door, "session", lambda *_: spark)
    file = tmp_path / "nightrec.toml"
    (tmp_path / "raw").mkdir()
    file.write_text("[ranker]\nhorizon_days = 5\npast_cuts = 2\n")
    return file


def test_a_past_night_before_the_log_is_passed_over(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    door.main(als_item_factors.run, ["--config", str(toml), "--date", AS_OF, "--cut", "2"])
    said = capsys.readouterr().out
    assert "als_item_factors 2026-02-28: skipped nothing to replay: the log begins too late 1" in said
    warehouse = f"{toml.parent}/warehouse"
    booked = arrow(warehouse, LEDGER, columns=["run_date", "stage", "fate", "row_count"]).to_pylist()
    assert booked == [
        {"run_date": dt.date(2026, 2, 28), "stage": "als_item_factors", "fate": "skipped", "row_count": 1}
    ]
    # Asked for by itself it has nothing to learn from.
    with pytest.raises(SystemExit) as ended:
        door.main(als_item_factors.run, ["--config", str(toml), "--date", "2026-02-28", "--als-model", "same-date"])
    assert ended.value.code == 3


def test_of_a_log_that_is_too_short_the_last_cut_is_rebuilt_all_the_same(toml: Path) -> None:
    door.main(item_profiles.run, ["--config", str(toml), "--date", AS_OF, "--cut", "1"])
    assert arrow(f"{toml.parent}/warehouse", LEDGER, columns=["fate"])["fate"].to_pylist().count("skipped") == 0
    assert arrow(f"{toml.parent}/warehouse", ITEM_PROFILES).num_rows == 0
