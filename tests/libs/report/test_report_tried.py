"""What an ablation and a search for settings tell people and machines, from findings made up by hand."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from rich.console import Console, RenderableType

from nightrec.evaluation.ablation import Ablation, Part
from nightrec.evaluation.findings import Slice
from nightrec.evaluation.tuning import Tried, Tuned, verdict
from nightrec.metrics.bootstrap import Interval
from nightrec.report import ablation, tuning

CUTS = dt.date(2026, 3, 1), dt.date(2026, 3, 15)


def text(page: RenderableType) -> str:
    console = Console(width=160, record=True)
    console.print(page)
    return console.export_text()


def part(name: str, worth: float, kind: str = "sources") -> Part:
    gain = Interval(worth, worth - 0.01, worth + 0.01, 80)
    ours, theirs = Interval(0.3, 0, 1, 7), Interval(0.1, 0, 1, 7)
    new = tuple(Slice(None, "items of 1 event", "recall", depth, name, ours, theirs, gain, None) for depth in (10, 100))
    items = new if name == "without any texts" else ()
    return Part(kind, name, Interval(0.2 - worth, 0, 1, 80), gain, 41.6, items)


def test_the_parts_worth_most_come_first_in_their_kind() -> None:
    parts = part("without als", 0.004), part("without text", 0.02), part("1 past night", 0.03, "nights")
    found = Ablation(10, 14, CUTS, Interval(0.2, 0.19, 0.21, 80), (*parts, part("without any texts", 0.05)))
    told = text(ablation.render(found))
    assert "NDCG@10 0.200 (0.190 to 0.210), 80 times a user in the 14 days after 2 cuts" in told
    order = ("without text", "+0.020 (+0.010 to +0.030)", "without als", "1 past night")
    assert [told.index(line) for line in order] == sorted(told.index(line) for line in order)
    # The same as Markdown, in the order that was asked.
    page = ablation.markdown({"shop": ablation.as_dict(found)})
    assert "**shop**: 14 days after each of 2026-03-01, 2026-03-15; everything together has NDCG@10 0.200" in page
    assert "| without als | 0.196 | +0.004 (-0.006 to +0.014) | 21 |\n| without text | 0.180 |" in page
    assert "| items of 1 event | 7 | recall@100 | 0.300 | 0.100 | +0.050 (+0.040 to +0.060) |" in page
    assert ablation.markdown({}) == "Not measured yet."
    # What texts do for new items stands below.
    assert told.count("items of 1 event") == 2 and "0.300" in told.split("items of 1 event")[1]
    assert "recall@10 " in told and "recall@100 " in told
    machine = json.loads(json.dumps(ablation.as_dict(found)))
    assert machine["cuts"] == ["2026-03-01", "2026-03-15"] and machine["parts"][2]["kind"] == "nights"
    assert "Nobody did anything" in text(ablation.render(Ablation(10, 14, CUTS, None, ())))


def test_a_search_tells_who_won_and_where_that_is_written() -> None:
    best, own = Tried(3, {"als.rank": 64, "ranker.dropout": 0.123456}, 0.21), Tried(0, {}, 0.2)
    found = Tuned(10, 14, CUTS, 0.2, best, Interval(0.01, 0.002, 0.018, 80), True, (best, own))
    told = text(tuning.render(found, verdict(found, "nightrec.toml"), Path("shop/tuned.toml")))
    assert "2 trials, each judged on 80 times a user in the 14 days after 2 cuts" in told
    assert "als.rank 64, ranker.dropout 0.1235" in told and "0.2100 with these settings, 0.2000 with those of" in told
    assert "Written: shop/tuned.toml" in told and "nothing" in told
    machine = json.loads(json.dumps(tuning.as_dict(found, Path("shop/tuned.toml"))))
    assert machine["file"] == "shop/tuned.toml" and machine["best"]["settings"] == dict(best.settings)
    lost = Tuned(10, 14, CUTS, 0.2, best, found.gain, False, (best, own))
    assert "which stay: the best of the others, 0.2100, is not more than one" in verdict(lost, "nightrec.toml")
