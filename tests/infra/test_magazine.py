"""The made-up magazine: what it says of itself holds."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "infra/quality/magazine.py"


def test_new_articles_are_read_and_titles_tell_their_topic(tmp_path: Path) -> None:
    write = runpy.run_path(str(SCRIPT))["write"]
    count = write(tmp_path / "one")
    assert write(tmp_path / "two") == count
    files = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*.jsonl"))
    assert len(files) == 2 * 24
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    read: list[dict[str, str]] = []
    titles: dict[str, str] = {}
    for day in (f"2026-03-{n:02}" for n in range(1, 25)):
        for line in (tmp_path / f"one/items/ingest_date={day}/part-0.jsonl").read_text().splitlines():
            item = json.loads(line)
            titles[item["item_id"]] = item["title"]
        events = (tmp_path / f"one/events/ingest_date={day}/part-0.jsonl").read_text().splitlines()
        today = [json.loads(line) for line in events]
        # What is read has come out, and happened on the day on which it arrives.
        assert all(event["item_id"] in titles and event["event_ts"].startswith(day) for event in today)
        read += today
    assert len(read) == count and len(titles) == 24 * 60
    ages = Counter(int(event["event_ts"][8:10]) - 1 - int(event["item_id"][1:]) // 60 for event in read)
    assert max(ages) <= 4 and ages[0] + ages[1] > 0.7 * count
    # Every title is five different words of one topic.
    topics = [{word.split("of")[1] for word in title.split()} for title in titles.values()]
    assert all(len(own) == 1 for own in topics) and len(set.union(*topics)) == 12
    assert all(len(set(title.split())) == 5 for title in titles.values())
