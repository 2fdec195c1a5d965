"""What the README says of quality, from files as an evaluation leaves them."""

from __future__ import annotations

from typing import Any

from nightrec.report.quality import made, quality


def interval(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "users": 1200}


def method(name: str, worth: float, ours: float) -> dict[str, Any]:
    names = ("ndcg", "recall", "hit", "average_precision", "precision", "f1", "debiased_ndcg", "novelty")
    figures = {**dict.fromkeys(names, interval(worth)), "recall_100": None}
    return {"method": name, "setting": "", "figures": figures, "gain": interval(ours - worth), "coverage": worth / 2}


def log(name: str, ours: float) -> dict[str, Any]:
    methods = [method(*row, ours) for row in (("popular", 0.08), ("nightrec", ours), ("habit", 0.1))]
    return {
        "name": name, "date": "2026-11-22", "minutes": 7.2, "machine": "2 cores", "ours": "nightrec", "k": 10,
        "days": 14, "cuts": ["2026-01-01"], "judged": methods, "costs": {"als": 1.25} if name == "shop" else {},
        "reached": [
            {"source": "als", "depth": 100, "mean": 0.25}, {"source": "als", "depth": 500, "mean": 0.25},
            {"source": "oracle", "depth": 10, "mean": 0.75},
        ],
        "slices": [
            {"name": "head items", "figure": "recall", "best": "habit", "ours": interval(0.3),
             "theirs": interval(0.2), "gain": interval(0.1)},
            {"name": "tail items", "figure": "recall", "depth": 100, "best": "habit", "ours": interval(0.4),
             "theirs": interval(0.2), "gain": interval(0.2), "over_segment": None},
        ],
        "by_cut": [
            {"cut": "2026-01-01", "method": row["method"], "gain": row["gain"], "ndcg": row["figures"]["ndcg"]}
            for row in methods
        ],
    }  # fmt: skip


def test_ours_beside_the_best_baseline_of_each_log() -> None:
    told = quality([log("shop", 0.14), log("films", 0.08)])
    assert "| shop | 1,200 | habit | 0.100 | 0.140 | +0.040 (+0.030 to +0.050) | +40% | 0.070 (0.050) |" in told
    assert "| films | 1,200 | habit | 0.100 | 0.080 | -0.020 (-0.030 to -0.010) | -20% |" in told
    assert "**shop**: 14 days after each of 2026-01-01; judged on 2026-11-22 in 7 minutes on 2 cores." in told
    assert "By cut: 2026-01-01 0.140 beside 0.100 (habit)." in told
    assert "| tail items | 1,200 | recall@100 | 0.400 | 0.200 |" in told
    # As files of before say it: at K.
    assert "| head items | 1,200 | recall@10 | 0.300 | 0.200 | +0.100 (+0.090 to +0.110) |  |" in told
    assert "| als | 0.250 | 0.250 | 1.2 | 0.250 | 0.250 |  |" in told and "shop 0.750, films 0.750." in told
    assert "- NDCG over the best baseline's in the mean +10.0%, wanted +5%: met" in told
    assert "- shop: the interval of the difference above 0 (from +0.030): met" in told
    assert "- films: coverage 0.040, wanted 0.050: missed" in told
    assert quality([]) == "Not measured yet."


def test_logs_made_of_others_are_told_without_a_mean() -> None:
    told = made([log("made/shop", 0.14)])
    assert told.startswith("**made/shop**: 14 days after each of") and "wanted" not in told
    assert made([]) == "Not measured yet."
