"""MovieLens as a deployment: the raw contract, the same bytes, and nothing written over."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nightrec import config, raw

SCRIPT = Path(__file__).resolve().parents[2] / "infra" / "demo" / "movielens.py"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three ratings on both sides of a midnight, two films, two people, in MovieLens's own layout."""
    folder = tmp_path / "source"
    folder.mkdir()
    files = {
        # out of order; the last second of 1997-09-20 and the first of the next day
        "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "2\t1\t4\t874800000\n1\t2\t5\t874799999\n1\t1\t3\t874800000\n",
        # a name with an accent and two genres; the film of which nothing is known
        "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tMisérables, Les\t1995\tDrama Musical\n2\tunkonwn\tV\tunknown\n",
        # both sides of an age band
        "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\twriter\t1\n2\t25\tF\tother\t2\n",
    }
    for kind, text in files.items():
        (folder / f"ml-100k.{kind}").write_text(text, encoding="utf-8")
    return folder


def demo(source: Path, out: Path) -> str:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--source", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]


def test_a_deployment_of_three_ratings(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert "2 nights written" in demo(source, out)
    made = out / "raw"
    assert raw.ingest_dates(str(made), "events") == [dt.date(1997, 9, 20), dt.date(1997, 9, 21)]
    rating = {"user_id": "1", "item_id": "1", "event_type": "rating", "event_ts": "1997-09-21T00:00:00Z", "value": 3}
    assert lines(made / "events/ingest_date=1997-09-20/part-0.jsonl.gz") == [
        rating | {"item_id": "2", "event_ts": "1997-09-20T23:59:59Z", "value": 5},
    ]
    assert lines(made / "events/ingest_date=1997-09-21/part-0.jsonl.gz") == [
        rating, rating | {"user_id": "2", "value": 4},
    ]
    assert lines(made / "items/ingest_date=1997-09-20/part-0.jsonl.gz") == [
        {
            "item_id": "1", "title": "Misérables, Les", "categories": ["Drama", "Musical"],
            "attributes": {"year": "1995"},
        },
        {"item_id": "2", "title": "Unknown", "categories": [], "attributes": {}},
    ]
    assert lines(made / "users/ingest_date=1997-09-20/part-0.jsonl.gz") == [
        {"user_id": "1", "attributes": {"age_band": "18-24", "gender": "M", "occupation": "writer"}},
        {"user_id": "2", "attributes": {"age_band": "25-34", "gender": "F", "occupation": "other"}},
    ]
    assert config.load(out / "nightrec.toml").profiles.segment_attribute == "age_band"


def test_the_same_bytes_and_nothing_written_over(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        demo(source, tmp_path / name)
    files = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*") if file.is_file())
    assert len(files) == 5
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    (tmp_path / "one" / "nightrec.toml").write_text("# mine\n")
    (tmp_path / "one" / "raw" / "mine").touch()
    assert "there already" in demo(source, tmp_path / "one")
    assert (tmp_path / "one" / "nightrec.toml").read_text() == "# mine\n"
    assert (tmp_path / "one" / "raw" / "mine").exists()


def test_a_missing_source_is_named(source: Path, tmp_path: Path) -> None:
    (source / "ml-100k.user").unlink()
    said = demo(source, tmp_path / "demo")
    assert "lacks ml-100k.user; infra/setup/data.sh puts MovieLens-100K there" in said
    assert "Traceback" not in said
