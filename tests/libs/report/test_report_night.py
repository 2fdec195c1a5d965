"""The end of a night: three users, the sentence on quality, commands that work as pasted."""

from __future__ import annotations

import datetime as dt
import json
import shlex
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from nightrec.config import Config
from nightrec.night import Books
from nightrec.report import night as report
from nightrec.report.books import Line

TONIGHT = dt.date(2026, 3, 10)


def test_a_stage_in_a_line() -> None:
    lines = (
        ("accepted", "", 7),
        ("input", "ledger", 1),
        ("read", "", 10),
        ("rejected", "bad_time", 1),
        ("rejected", "robot", 2),
        ("written", "clean_events", 7),
        ("written", "rejected_events", 3),
        ("read", "", 5),
        ("late", "", 0),
        ("unchanged", "lists", 4),
    )
    line = report.stage_line(Books("clean_events", TONIGHT, lines, 1.26, 0.44))
    assert line == (
        "clean_events      2026-03-10     1.3 s,  0.4 overhead  in        16  out        10  "
        "accepted 7, unchanged lists 4, rejected 3"
    )
    assert report.stage_line(Books("export", TONIGHT, (), 0.0, 0.0)).endswith("in         0  out         0")


def test_parts_are_told_most_first_and_small_ones_together() -> None:
    parts = ("linear", 1.25), ("als", 0.31), ("text", 0.06), ("habit", 0.01)
    line = report.parts_line(Books("candidates", TONIGHT, (), 2.0, 0.1, parts))
    assert line == "  seconds of cores: linear 1.2, als 0.3, 2 others 0.1"
    assert report.parts_line(Books("export", TONIGHT, (), 0.0, 0.0)) == ""


def test_three_users_most_median_fewest_and_the_rest_by_id(deployment: Config) -> None:
    # only Ann acted on the night; the place left is the other user with a list; nobody else has one
    assert report.three_users(deployment, TONIGHT) == ["ann", "o'neil \\ x"]
    assert report.three_users(deployment, dt.date(2026, 1, 1)) == ["ann", "o'neil \\ x"]


def test_the_spread_of_users() -> None:
    counts = {"d": 1, "a": 3, "b": 9, "e": 1, "c": 3}
    # by count: b 9, a 3, c 3 (the tie by id), d 1, e 1
    assert report.spread(counts, [*counts, "f"]) == ["b", "c", "e"]
    assert report.spread(dict(reversed(counts.items())), []) == ["b", "c", "e"]
    assert report.spread({"b": 1, "a": 1}, "abcd") == ["a", "b", "c"]
    assert report.spread({}, []) == []


def test_what_was_published() -> None:
    def line(fate: str, rows: int) -> Line:
        return Line(TONIGHT, "published_topk", fate, "", rows)

    assert report.published_line([]) == "Nothing was published."
    assert "0 rows written to published_topk (0 inserted, 0 updated, 0 deleted, 9 unchanged)" in report.published_line(
        [line("unchanged", 9), line("written", 0)]
    )
    assert report.published_line([line("inserted", 2), line("written", 2)]).startswith("Published: 2 rows written")


def test_what_the_audit_and_the_gate_said(deployment: Config) -> None:
    assert report.verdicts(deployment, dt.date(2026, 1, 1)) == []
    assert report.verdicts(deployment, TONIGHT) == [
        "Audit: 1 of 2 checks hold, 1 are notes.", "volume (warn): half of it", "One pair of models serves unjudged.",
    ]  # fmt: skip


def test_quality_does_not_claim_more_than_it_knows() -> None:
    said = report.quality_line(report.Quality(41, 10, 14, 0.1234, 0.2, 0.1, 0.15))
    assert said.startswith("An illustration, not a measure") and "41 users" in said and "NDCG@10 0.123" in said
    assert "nobody" in report.quality_line(None) and "nobody" in report.quality_line(
        report.Quality(0, 10, 14, 0, 0, 0, 0)
    )


def test_the_end_of_a_night(deployment: Config) -> None:
    console = Console(width=160, file=StringIO())
    books = [Books(stage, TONIGHT, (), 40.0, 10.4) for stage in ("clean_events", "export")]
    report.summary(console, Path("x/nightrec.toml"), deployment, TONIGHT, books, 97.4)
    seen = console.file.getvalue()  # type: ignore[attr-defined]
    assert "up to 2026-03-10: 32 read = 25 accepted, 1 late, 2 duplicate, 3 rejected, 1 robot  ✓ balanced" in seen
    assert "Raw lines of 2026-03-10: 12 read = 12 accepted, 0 rejected  ✓ balanced" in seen
    assert "Published: 2 rows written to published_topk (1 inserted, 1 updated, 0 deleted, 1 unchanged)." in seen
    assert "The night took 97 s; 21 s were overhead" in seen
    assert "User ann" in seen and "published_topk  version" in seen
    # whole, however long: a cropped command cannot be pasted
    for command in report.commands(Path("x/nightrec.toml"), deployment, "ann", TONIGHT):
        assert f"  {command}\n" in seen


def test_for_machines(deployment: Config, capsys: pytest.CaptureFixture[str]) -> None:
    books = [Books("export", TONIGHT, (("written", "files", 2),), 1.0, 0.6, (("all", 0.25),))]
    report.summary(Console(), Path("x.toml"), deployment, TONIGHT, books, 1.0, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["stages"][0]["lines"] == [{"fate": "written", "reason": "files", "rows": 2}]
    assert (answer["stages"][0]["seconds"], answer["stages"][0]["overhead"]) == (1.0, 0.6)
    assert answer["users"][0]["user_id"] == "ann" and answer["books"]["clean_events"]["read"] == 12


def test_commands_survive_the_shell(deployment: Config, tmp_path: Path) -> None:
    file = tmp_path / "with blank" / "nightrec.toml"
    show, books, read = report.commands(file, deployment, "o'neil \\ x", TONIGHT)
    assert shlex.split(show)[1:] == ["show", "o'neil \\ x", "--config", str(file)]
    assert shlex.split(books)[1:] == ["report", "--config", str(file), "--date", "2026-03-10"]
    answer = subprocess.run(read, shell=True, check=False, capture_output=True, text=True, timeout=60)
    assert "list_kind" in answer.stdout, answer.stderr
