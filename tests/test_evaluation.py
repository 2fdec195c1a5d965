"""An evaluation and an ablation of a shop with two planted tastes: what must come out is known by construction."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from quality_commands import answered
from spark_commands import environment
from synthetic import Shop, deployment

from nightrec import quality
from nightrec.config import Config, load
from nightrec.evaluation import ablation, protocol
from nightrec.evaluation.ablation import Variant
from nightrec.evaluation.lists import DEEP
from nightrec.night import Night
from nightrec.store import arrow, version
from nightrec.tables import CANDIDATES, RANKED_TOPK

pytestmark = pytest.mark.usefixtures("interpreted")


@dataclass(frozen=True)
class Evaluated:
    """A deployment, what was in its folder before, and what `nightrec evaluate` told machines of two cuts."""

    toml: Path
    shop: Shop
    before: tuple[str, ...]
    found: dict[str, Any]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("shop")
    toml, shop = deployment(folder, past_cuts=1, users=60, items=60, days=30)
    before = sorted(path.name for path in folder.iterdir())
    command = ["nightrec", "evaluate", "--config", str(toml), "--cuts", "2", "--days", "7", "--json"]
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return Evaluated(toml, shop, tuple(before), json.loads(ended.stdout))


def test_two_cuts_of_a_shop_with_planted_tastes(evaluated: Evaluated) -> None:
    shop, found, folder = evaluated.shop, evaluated.found, evaluated.toml.parent
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
    page = (folder / "reports" / "evaluation.html").read_text()
    assert page.count("<svg") == 5 and "EASE" in page and "http://www.w3.org" in page
    # The deployment's own tables were not touched.
    assert sorted(path.name for path in folder.iterdir()) == sorted({*evaluated.before, "reports"})


def other_taste(candidates: DataFrame) -> DataFrame:
    """Only what the users of the other taste like."""
    same = F.expr("try_cast(substr(list_key, 2) AS int) % 2 = try_cast(substr(item_id, 2) AS int) % 2")
    return candidates.where((F.col("list_kind") != "user") | ~same)


def test_what_is_left_out_is_missed_and_an_ablation_goes_on_where_it_was(
    spark: SparkSession, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = protocol.apart(load(evaluated.toml), "ablation")
    cut = evaluated.shop.last - timedelta(days=7)
    # The night of the last cut as the evaluation left it: `nights` would make the same once more.
    shutil.copytree(evaluated.toml.parent / "reports/evaluation/warehouse", settings.paths.warehouse)
    shutil.copytree(evaluated.toml.parent / "reports/evaluation/models", settings.paths.models)
    ran: list[date] = []

    def nights(
        spark: SparkSession, config: Config, wanted: list[date], *_: object
    ) -> Iterator[tuple[Night, set[date]]]:
        for one in wanted:
            ran.append(one)
            with Night(spark, config, one, warm=True) as night:
                night.decide()
                yield night, set(night.training_cuts())

    monkeypatch.setattr(protocol, "nights", nights)
    # Of this one the recall of items is told too.
    monkeypatch.setattr(ablation, "WITHOUT_TEXTS", "the own taste")
    asked = [
        Variant("half", "the own taste", view=other_taste),
        Variant("none", "nothing left out", view=lambda candidates: candidates),
    ]
    monkeypatch.setattr(ablation, "chosen", lambda config, parts: asked if parts == ["all of these"] else [])
    told: list[str] = []
    monkeypatch.setattr(quality, "_say", lambda console, line: told.append(line))
    words = ("--config", str(evaluated.toml), "--cuts", "1", "--days", "7", "--part", "all of these")

    def ablated() -> dict[str, Any]:
        told.clear()
        found = answered(monkeypatch, spark, "ablate", *words)
        assert all(part.pop("seconds") > 0 for part in found["parts"])
        return found

    before = version(settings.paths.warehouse, CANDIDATES)
    found = ablated()
    assert found["cuts"] == [cut.isoformat()] == [one.isoformat() for one in ran]
    whole, parts = found["whole"], {part["name"]: part for part in found["parts"]}
    assert set(parts) == {variant.name for variant in asked}
    # As evaluated.
    (ours,) = (
        row for row in evaluated.found["judged"] if row["cut"] == cut.isoformat() and row["method"] == "nightrec"
    )  # fmt: skip
    assert whole == pytest.approx(ours["figures"]["ndcg"])
    # The same lists again, to the last user.
    same, gone = parts["nothing left out"], parts["the own taste"]
    assert (same["worth"]["mean"], same["worth"]["low"], same["worth"]["high"]) == (0, 0, 0) and same["ndcg"] == whole
    assert gone["worth"]["low"] > 0 and gone["worth"]["mean"] == pytest.approx(whole["mean"] - gone["ndcg"]["mean"])
    assert gone["ndcg"]["users"] == whole["users"]
    items = {(one["name"], one["depth"]): one for one in gone["items"]}
    assert same["items"] == [] and items["head items", found["k"]]["best"] == "the own taste"
    assert {depth for _, depth in items} == {found["k"], DEEP}
    assert items["tail items", DEEP]["ours"]["mean"] > items["tail items", found["k"]]["ours"]["mean"]
    assert sum(one["gain"]["mean"] > 0 for one in items.values()) > 0
    for one in items.values():
        assert one["gain"]["mean"] == pytest.approx(one["ours"]["mean"] - one["theirs"]["mean"])
    assert [line.split(": ")[0] for line in told] == [variant.name for variant in asked]
    assert "variant 1 of 2, some " in told[0] and told[1].endswith("variant 2 of 2, some 0 s left")
    # The candidates are as they were made, and were not made again.
    warehouse = settings.paths.warehouse
    assert version(warehouse, CANDIDATES) == before
    left = arrow(warehouse, CANDIDATES, {"list_kind": "user"}, ["list_key", "item_id"]).to_pylist()
    assert any((int(row["list_key"][1:]) - int(row["item_id"][1:])) % 2 == 0 for row in left)
    # The last variant's lists go on behind K, as the whole system's do.
    lists = arrow(warehouse, RANKED_TOPK, {"list_kind": "user"}, ["rank"])["rank"]
    assert max(lists.to_pylist()) > 2 * found["k"]

    # Started again, it answers at once; where a variant is missing, that one is judged.
    assert ablated() == found and told == ["2 of 2 variants were judged by an earlier start"] and ran == [cut]
    (judged,) = Path(settings.paths.reports, "judged").glob("*/*")
    (judged / "the-own-taste.npz").unlink()
    assert ablated() == found and ran == [cut, cut]
    said, again = told
    assert said == "1 of 2 variants were judged by an earlier start" and again.startswith("the own taste: ")
    # Lists that are not the whole system's any more: what was judged beside that does not count.
    (judged / "the-own-taste.npz").unlink()
    other = ablated()
    assert [line.split(": ")[0] for line in told[1:]] == [
        f"the lists as of {cut} are others than those of an earlier start", *parts
    ]  # fmt: skip
    assert other["whole"] == gone["ndcg"] == other["parts"][0]["ndcg"]
