"""The books: fates add up, and what does not add up is seen."""

from __future__ import annotations

import datetime as dt
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.report.books import Line, as_dict, balance, balance_text, lines, render

BEFORE, TONIGHT = dt.date(2026, 3, 9), dt.date(2026, 3, 10)


def text(what: RenderableType) -> str:
    console = Console(width=140, file=StringIO())
    console.print(what)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_all_nights_balance(deployment: Config) -> None:
    ledger = lines(deployment.paths.warehouse)
    found = balance(ledger)
    assert (found.dates, found.read, found.accepted, found.late, found.duplicate, found.rejected) == (
        2,
        32,
        25,
        1,
        2,
        4,
    )
    assert found.is_balanced and found.reasons == {"broken_line": 3, "robot": 1}
    seen = text(render(ledger))
    assert "Raw lines of 2 ingest dates: 32 read = 25 accepted, 1 late, 2 duplicate, 3 rejected, 1 robot  ✓" in seen
    assert "3 broken_line, 1 robot" in seen
    # with hundreds of ingest dates a table for each would bury the nights that ran
    assert "Books of 2026-03-10" in seen and "Books of 2026-03-09" not in seen


def test_one_night(deployment: Config) -> None:
    ledger = lines(deployment.paths.warehouse, BEFORE)
    assert {line.run_date for line in ledger} == {BEFORE}
    seen = text(render(ledger))
    assert "Books of 2026-03-09" in seen and "robot" in seen


def test_unbalanced_books_are_loud() -> None:
    day = dt.date(2026, 1, 1)
    # the sum over both dates balances: a line lost on the first is gained on the second
    ledger = [
        Line(day, "clean_events", "read", "", 3),
        Line(day, "clean_events", "accepted", "", 2),
        Line(TONIGHT, "clean_events", "read", "", 3),
        Line(TONIGHT, "clean_events", "accepted", "", 4),
    ]
    found = balance(ledger)
    assert found.unbalanced == (day, TONIGHT) and not found.is_balanced
    assert "DOES NOT BALANCE on 2026-01-01, 2026-03-10" in text(balance_text(found, "Raw lines"))
    assert as_dict(ledger)["clean_events"]["unbalanced"] == ["2026-01-01", "2026-03-10"]


def test_an_empty_date_balances() -> None:
    found = balance([Line(TONIGHT, "clean_events", "read", "", 0)])
    assert found.is_balanced and (found.dates, found.read) == (1, 0)
    assert balance([]).dates == 0


def test_for_machines(deployment: Config) -> None:
    answer = json.loads(json.dumps(as_dict(lines(deployment.paths.warehouse))))
    assert answer["clean_events"]["is_balanced"] is True
    assert {
        "run_date": "2026-03-10",
        "stage": "published_topk",
        "fate": "written",
        "reason": "published_topk",
        "row_count": 2,
    } in answer["ledger"]


def test_no_books(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no books of 2026-03-10"):
        lines(str(tmp_path), TONIGHT)
