"""A log thinned: what stays is of the log, about so much of it, the same every time, and all that is no event."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "infra/quality/thinned.py"


def test_a_share_of_the_events_stays_and_everything_else(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    lines = [f'{{"event_id": "{n}"}}\n' for n in range(2000)]
    (plain := raw / "events/ingest_date=2026-03-01/part-0.jsonl").parent.mkdir(parents=True)
    plain.write_text("".join(lines[:1000]))
    (packed := raw / "events/ingest_date=2026-03-02/part-0.jsonl.gz").parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress("".join(lines[1000:]).encode()))
    (items := raw / "items/ingest_date=2026-03-01/part-0.jsonl").parent.mkdir(parents=True)
    items.write_text('{"item_id": "a"}\n' * 3)

    def stay(out: Path) -> list[str]:
        words = [sys.executable, SCRIPT, "--raw", raw, "--out", out, "--share", "0.1"]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        first = (out / plain.relative_to(raw)).read_text()
        second = gzip.decompress((out / packed.relative_to(raw)).read_bytes()).decode()
        kept = (first + second).splitlines(keepends=True)
        assert said.startswith(f"{len(kept)} of 2,000 events written")
        return kept

    kept = stay(tmp_path / "once")
    # Binomial of 2000 and 0.1: 200, five standard deviations are 67.
    assert set(kept) < set(lines) and sorted(kept) == sorted(set(kept)) and 133 < len(kept) < 267
    assert kept == stay(tmp_path / "again")
    assert (tmp_path / "once/items/ingest_date=2026-03-01/part-0.jsonl").read_bytes() == items.read_bytes()


def test_events_in_other_files_are_refused(tmp_path: Path) -> None:
    (file := tmp_path / "raw/events/ingest_date=2026-03-01/part-0.csv").parent.mkdir(parents=True)
    file.write_text("user_id,item_id\nu,a\n")
    words = [sys.executable, SCRIPT, "--raw", tmp_path / "raw", "--out", tmp_path / "out"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stderr == f"{file}: only events in JSON lines can be thinned\n"
