"""An evaluation of a shop with two planted tastes: what must come out is known by construction."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from spark_commands import environment
from synthetic import deployment


def test_two_cuts_of_a_shop_with_planted_tastes(tmp_path: Path) -> None:
    toml, shop = deployment(tmp_path, past_cuts=1, users=60, items=60, days=30)
    before = sorted(path.name for path in tmp_path.iterdir())
    command = ["nightrec", "evaluate", "--config", str(toml), "--cuts", "2", "--days", "7", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    judged = {(row["cut"], row["method"]): row for row in found["judged"]}
    cuts = [(shop.last - timedelta(days=days)).isoformat() for days in (14, 7)]
    methods = {method for _, method in judged}
    assert found["cuts"] == cuts and len(judged) == 3 * len(methods) == len(found["judged"])
    assert {"item BM25", "neighbour users", "EASE", "iALS", "habit, trend"} < methods
    for cut in (*cuts, None):
        names = "nightrec", "popularity of 28 days", "EASE"
        ours, popular, linear = (judged[cut, name] for name in names)
        worth = [row["figures"]["ndcg"]["mean"] for row in (ours, popular, linear)]
        # Half of the catalogue is the other taste's: whoever knows the taste is ahead. Ours need not be: the shop's
        # ranker is as small as it may be.
        assert worth[2] > worth[1] > 0 < worth[0]
        assert popular["gain"]["mean"] == pytest.approx(worth[0] - worth[1])
        assert ours["gain"]["mean"] == ours["gain"]["low"] == 0.0
        assert 0 < ours["coverage"] <= 1
        # A list of 100 of 60 items leaves nothing out.
        assert linear["figures"]["recall_100"]["mean"] == pytest.approx(1.0)
        reached = {(row["source"], row["depth"]): row["mean"] for row in found["reached"] if row["cut"] == cut}
        assert max(reached["als", 100], reached["popularity", 100]) <= reached["union", 100] <= reached["union", 500]
        assert worth[0] <= reached["oracle", 5] <= 1
        # The ranker's order goes on to the last of the candidates, which are fewer than 100.
        assert ours["figures"]["recall_100"]["mean"] == pytest.approx(reached["union", 500])
        of_cut = [row for row in found["slices"] if row["cut"] == cut]
        deep = [row for row in of_cut if row["depth"] == 100]
        assert "tail items" in {row["name"] for row in deep} and {row["figure"] for row in deep} == {"recall"}
        assert all(row["theirs"]["mean"] == pytest.approx(1.0) for row in deep)
        slices = {row["name"]: row for row in of_cut if row["depth"] == found["k"]}
        assert {row["name"] for row in deep} < set(slices) and len(of_cut) == len(deep) + len(slices)
        assert slices["segment garden"]["over_segment"]["users"] == slices["segment garden"]["ours"]["users"]
        assert slices["head items"]["over_segment"] is None and "segment popularity, trend" in methods
        everybody = slices["users of 6 events and more"]["ours"]["users"]
        assert everybody <= ours["figures"]["ndcg"]["users"] and {"segment records", "segment garden"} < set(slices)
        (predicted,) = (row for row in found["calibrated"] if row["cut"] == cut)
        # Whoever acted before and after the cut has a list of five that the ranker ordered.
        known = sum(row["ours"]["users"] for name, row in slices.items() if name.startswith("users of "))
        assert predicted["rows"] == 5 * known > 0 and 0 < predicted["seen"] < 1
    assert {"als", "linear", "features"} <= set(found["costs"]) and min(found["costs"].values()) >= 0
    page = (tmp_path / "reports" / "evaluation.html").read_text()
    assert page.count("<svg") == 5 and "EASE" in page and "http://www.w3.org" in page
    # The deployment's own tables were not touched.
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "reports"})
