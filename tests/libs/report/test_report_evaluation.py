"""What an evaluation tells people, from two cuts made up by hand."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nightrec.evaluation.findings import Findings, findings
from nightrec.evaluation.judge import Cut
from nightrec.evaluation.lists import PER_METHOD, item_figures
from nightrec.metrics import bootstrap, probability
from nightrec.report import evaluation, evaluation_charts

CUTS = dt.date(2026, 3, 1), dt.date(2026, 3, 15)


def cut(day: dt.date, worth: dict[str, float], seed: int, costs: dict[str, float]) -> Cut:
    """Forty users; each method's figures are around its worth; diversity is known of nobody."""
    rng = np.random.default_rng(seed)
    slices = ("users without events", "segment $north")
    names = [(method, name) for method in worth for name in (*PER_METHOD, *item_figures(10), *slices)]
    noise = rng.normal(0, 0.1, (40, 1))
    figures = np.hstack([worth[method] + noise + rng.normal(0, 0.01, (40, 1)) for method, _ in names])
    figures[:, [n for n, (_, name) in enumerate(names) if name == "diversity"]] = np.nan
    figures[:30, [n for n, (_, name) in enumerate(names) if name == "users without events"]] = np.nan
    sums = np.zeros((2, len(names), 1 + bootstrap.RESAMPLES))
    bootstrap.add(rng.integers(0, 2**63, 40).astype(np.uint64), figures, sums)
    resampled = bootstrap.Resampled(tuple(names), sums[0, :, 0], sums[1, :, 0], sums[0, :, 1:], sums[1, :, 1:])
    bins = np.zeros((4, probability.BINS))
    bins[:, 5] = 100, 3, 2, 11
    return Cut(
        day, tuple(worth), {name: f"setting {day.day}" if name == "EASE" else "" for name in worth}, resampled, slices,
        dict.fromkeys(worth, 0.25), {("als", 100): (10.0, 40), ("union", 100): (20.0, 40), ("oracle", 10): (24.0, 40)},
        probability.Calibration(*bins), {"factors": probability.SquaredError(seed, 4.0)}, costs,
    )  # fmt: skip


@pytest.fixture
def found() -> Findings:
    first = cut(CUTS[0], {"nightrec": 0.3, "habit": 0.1, "EASE": 0.2}, 1, {"als": 3.0, "features": 1.0})
    # EASE is not run there: the catalogue has grown.
    return findings([first, cut(CUTS[1], {"nightrec": 0.35, "habit": 0.25}, 2, {"als": 2.0})], 10, 14)


def test_pooled_are_methods_of_every_cut_and_differences_are_paired(found: Findings) -> None:
    assert [(one.cut, one.method) for one in found.judged] == [
        (None, "nightrec"), (None, "habit"),
        (CUTS[0], "nightrec"), (CUTS[0], "habit"), (CUTS[0], "EASE"), (CUTS[1], "nightrec"), (CUTS[1], "habit"),
    ]  # fmt: skip
    ours, habit = found.judged[:2]
    assert ours.figures["ndcg"].users == 80 and ours.figures["diversity"] is None
    assert ours.gain.mean == ours.gain.low == ours.gain.high == 0
    assert habit.gain.mean == pytest.approx(ours.figures["ndcg"].mean - habit.figures["ndcg"].mean)
    assert habit.gain.low > 0.1 and habit.gain.high - habit.gain.low < 0.05
    best = {one.cut: one.best for one in found.slices}
    assert best == {None: "habit", CUTS[0]: "EASE", CUTS[1]: "habit"}
    cold = next(one for one in found.slices if one.cut is None and one.name == "users without events")
    assert cold.ours.users == 20 and (cold.figure, cold.depth) == ("ndcg", 10)
    head = {one.depth: one for one in found.slices if one.cut is None and one.name == "head items"}
    assert [(depth, one.figure) for depth, one in head.items()] == [(10, "recall"), (100, "recall")]
    # Not the same figure twice.
    assert head[10].ours.mean != head[100].ours.mean
    assert {(one.source, one.depth): one.mean for one in found.reached if one.cut is None} == {
        ("als", 100): 0.25, ("union", 100): 0.5, ("oracle", 10): 0.6,
    }  # fmt: skip
    pooled = found.calibrated[0]
    assert found.costs == {"als": 2.5, "features": 0.5}
    # 4 over 1 rating, 4 over 2, 8 over 3.
    assert [(one.cut, one.rows, one.error**2) for one in found.rated] == [
        (None, 3, pytest.approx(8 / 3)), (CUTS[0], 1, pytest.approx(4)), (CUTS[1], 2, pytest.approx(2)),
    ]  # fmt: skip
    assert (pooled.rows, pooled.expected, pooled.seen, pooled.log_loss) == pytest.approx((200, 0.03, 0.02, 0.11))


def test_users_are_compared_with_segment_popularity_too() -> None:
    found = findings([cut(CUTS[0], {"nightrec": 0.3, "habit": 0.25, "segment popularity": 0.2}, 3, {})], 10, 14)
    over = {one.name: one.over_segment for one in found.slices if one.cut is None}
    assert over["head items"] is None and over["users without events"].users == 10
    assert over["segment $north"].mean == pytest.approx(0.1, abs=0.01) and over["segment $north"].low > 0.08


def test_what_people_and_machines_read(found: Findings, tmp_path: Path) -> None:
    console = Console(width=200, record=True)
    page = evaluation_charts.write(found, tmp_path / "reports")
    console.print(evaluation.render(found, page))
    text = console.export_text()
    assert "What 80 times a user did in the 14 days after 2 cuts" in text
    assert re.search(r"the best baseline there, EASE \(setting 1\), 0\.(19|20)", text) and "segment $north" in text
    assert "Of 3 ratings given after the cuts those predicted by the factors were off by 1.633" in text
    assert re.search(r"als +0.250 +2.5 *\n", text) and re.search(r"union +0.500 +3.0 *\n", text)
    assert re.search("head items +80 +recall@10 +0", text) and re.search("head items +80 +recall@100 +0", text)
    assert re.search(r"segment \$north +80 +ndcg@10 +0", text)
    assert re.search("method +NDCG +Recall +@100 +precision +F1 +HR", text)
    assert "the ranker expected 3.00% to be acted on; 2.00% were" in text
    machine = json.loads(json.dumps(evaluation.as_dict(found)))
    assert machine["cuts"] == ["2026-03-01", "2026-03-15"] and machine["judged"][0]["cut"] is None
    html = page.read_text()
    assert html.count("<svg") == 5 and "<script" not in html
    assert "segment $north, ndcg@10" in html and "head items, recall@100" in html
    again = evaluation_charts.page(found)
    assert again == html


def test_nobody_did_anything() -> None:
    none = Findings("nightrec", 10, 14, CUTS, (), (), (), (), (), {})
    console = Console(width=100, record=True)
    console.print(evaluation.render(none, Path("x.html")))
    assert console.export_text().startswith("Nobody did anything after the cuts")
    assert "<svg" not in evaluation_charts.page(none)
