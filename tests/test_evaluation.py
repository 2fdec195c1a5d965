"""An evaluation of a shop with two planted tastes: what must beat what is known by construction."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from spark_commands import environment
from synthetic import deployment


def test_lists_of_planted_tastes_beat_popularity_and_chance(tmp_path: Path) -> None:
    toml, shop = deployment(tmp_path, users=60, items=80, days=40)
    before = sorted(path.name for path in tmp_path.iterdir())
    command = ["nightrec", "evaluate", "--config", str(toml), "--cuts", "2", "--days", "5", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    judged = json.loads(ended.stdout)
    found = {(row["cut"], row["method"]): row for row in judged}
    cuts = [(shop.last - timedelta(days=days)).isoformat() for days in (10, 5)]
    methods = {row["method"] for row in judged}
    assert {cut for cut, _ in found} == {*cuts, None} and len(judged) == 3 * len(methods)
    for cut in (*cuts, None):
        names = "nightrec", "popularity of 28 days", "EASE"
        ours, popular, linear = (found[cut, name] for name in names)
        # Half of the catalogue is the other taste's: whoever knows the taste is far ahead.
        assert ours["ndcg"]["mean"] > popular["ndcg"]["mean"] and linear["ndcg"]["mean"] > popular["ndcg"]["mean"]
        assert popular["gain"]["mean"] == pytest.approx(ours["ndcg"]["mean"] - popular["ndcg"]["mean"])
        assert ours["gain"]["mean"] == ours["gain"]["low"] == 0.0
        assert 0 < ours["coverage"] <= 1
    # The deployment's own tables were not touched.
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "reports"})
