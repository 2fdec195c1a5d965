"""A user's page: events, list, what changed; every figure is known from the fixture."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.report.show import Shown, render, show

BEFORE, TONIGHT = dt.date(2026, 3, 9), dt.date(2026, 3, 10)


def text(shown: Shown, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(render(shown))
    return console.export_text()


def test_history_list_and_changes(deployment: Config) -> None:
    page = show(deployment, "ann")
    # the event of the 11th had not arrived; of two in one second the smaller item id stands first
    assert (page.night, page.event_count, len(page.events)) == (TONIGHT, 12, 10)
    assert [event.item_id for event in page.events[:3]] == ["a", "c", "b"]
    assert page.events[0].title == "Alien [1979]"
    assert [(item.item_id, item.rank_before) for item in page.items] == [("b", 1), ("d", 3), ("c", 2), ("雪", None)]
    assert (page.night_before, page.gone, page.notes) == (BEFORE, ("Alien [1979]",), ())
    seen = text(page)
    assert "User ann, 12 events up to 2026-03-10" in seen
    # titles and reasons with brackets are words, not console markup
    assert "Alien [1979]" in seen and "because of [d]" in seen and "雪国" in seen
    assert "Since 2026-03-09: 1 new, 2 moved, 1 in place. Gone: Alien [1979]." in seen
    assert "up 1" in seen and "down 1" in seen and "same" in seen and "new" in seen


def test_the_first_night_has_nothing_to_compare_with(deployment: Config) -> None:
    page = show(deployment, "ann", BEFORE)
    assert (page.event_count, page.night_before) == (0, None)
    assert "first night" in text(page)
    # it was superseded by tonight's, and the page says so; items without a profile that night go by their ids
    assert page.notes == ("readers are served another list, of 2026-03-10",)
    assert [item.title for item in page.items] == ["b", "c", "d", "a"]


@pytest.mark.parametrize(("user", "why"), [("böb", "all blocked"), ("cy", "not eligible")])
def test_a_user_without_a_list_is_shown_what_readers_fall_back_to(deployment: Config, user: str, why: str) -> None:
    page = show(deployment, user)
    assert page.list_kind == "everyone" and [item.item_id for item in page.items] == ["a", "b"]
    assert len(page.notes) == 1 and why in page.notes[0]
    assert "Nothing changed since 2026-03-09." in text(page)


def test_an_id_may_hold_quotes(deployment: Config) -> None:
    assert len(show(deployment, "o'neil \\ x").items) == 2


def test_unknown_user_and_night(deployment: Config, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no user 'anne'.*near it: ann,"):
        show(deployment, "anne")
    with pytest.raises(UsageError, match="no lists of 2026-01-01; there are some of 2026-03-09, 2026-03-10"):
        show(deployment, "ann", dt.date(2026, 1, 1))
    nowhere = deployment.model_copy(update={"paths": deployment.paths.model_copy(update={"warehouse": str(tmp_path)})})
    with pytest.raises(UsageError, match="no night has lists yet"):
        show(nowhere, "ann")


def test_for_machines(deployment: Config) -> None:
    page = json.loads(json.dumps(show(deployment, "ann").as_dict()))
    assert page["night"] == "2026-03-10" and page["items"][1]["rank_before"] == 3
    assert page["events"][0]["event_ts"].startswith("2026-03-10T10:00:00")


def test_fast_and_without_spark(deployment: Config) -> None:
    code = (
        "import sys; from nightrec.config import Config, Paths; from nightrec.report.show import render, show\n"
        "from rich.console import Console\n"
        f"Console().print(render(show(Config(paths=Paths(warehouse={deployment.paths.warehouse!r})), 'ann')))\n"
        "assert 'pyspark' not in sys.modules"
    )
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    after = os.times()
    # seconds of processor time, so that a busy machine does not fail it; 5 s is the promise, on an idle one it is 1
    assert after.children_user + after.children_system - before.children_user - before.children_system < 5
