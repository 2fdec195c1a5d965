"""What an ablation keeps between starts: whole files, and only as long as the same is asked of the same log."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from nightrec.config import Config, load
from nightrec.evaluation.kept import Kept
from nightrec.metrics.bootstrap import Resampled
from nightrec.past import manifest

CUT, NEXT = date(2026, 3, 8), date(2026, 3, 15)
NAMES = "ndcg", ("ndcg", "recall")
FIGURES = Resampled(NAMES, np.array([3.0, 2.0]), np.array([1.5, 0.1]), np.ones((2, 4)), np.arange(8.0).reshape(2, 4))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    toml = tmp_path / "nightrec.toml"
    toml.write_text('[paths]\nraw = "raw"\n')
    for day in (CUT, NEXT):
        folder = tmp_path / f"raw/events/ingest_date={day}"
        folder.mkdir(parents=True)
        (folder / "events.csv").write_text("user_id,item_id\n")
    return load(toml)


def there(config: Config, days: int = 6) -> list[bool]:
    kept = Kept.of(config, [CUT, NEXT], days)
    return [kept.has(cut, "without als") for cut in kept.cuts]


def test_what_was_judged_reads_back(config: Config) -> None:
    kept = Kept.of(config, [CUT, NEXT], 6)
    assert there(config) == [False, False]
    for cut in (CUT, NEXT):
        kept.put(cut, "without als", FIGURES, 41.5)
    figures, seconds = kept.get(NEXT, "without als", NAMES)
    assert seconds == 41.5 and figures.names == NAMES
    for name in ("counts", "totals", "drawn", "sums"):
        assert np.array_equal(getattr(figures, name), getattr(FIGURES, name))
    # Another variant, and one that was half written when it was killed, are not there.
    assert not kept.has(CUT, "without text")
    (kept.cuts[CUT] / "without-text.new").write_bytes(b"half")
    assert there(config) == [True, True] and not kept.has(CUT, "without text")
    (kept.cuts[CUT] / "without-text.npz").write_bytes(b"half")
    assert not kept.has(CUT, "without text")
    kept.forget(CUT)
    assert there(config) == [False, True]


def test_other_files_days_settings_and_code_are_another_question(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put() -> None:
        kept = Kept.of(config, [CUT, NEXT], 6)
        for cut in kept.cuts:
            kept.put(cut, "without als", FIGURES, 1)
        assert there(config) == [True, True]

    put()
    # It is judged with the second cut alone: the first ends before.
    late = Path(config.paths.raw) / f"events/ingest_date={NEXT}/late.csv"
    late.write_text("user_id,item_id\n")
    assert there(config) == [True, False]
    lists, als = config.lists.model_copy(update={"k": 3}), config.als.model_copy(update={"rank": 2})
    for other in ({"lists": lists}, {"als": als}):
        put()
        assert there(config.model_copy(update=other)) == [False, False]
        # What belongs to the question before is not kept for ever.
        assert there(config) == [False, False]
    put()
    assert there(config, days=5) == [False, False]
    put()
    monkeypatch.setattr(manifest, "code", lambda: "other")
    assert there(config) == [False, False]
