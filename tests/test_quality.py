"""Ablation and trials over a shop with two planted tastes, on one cut: what must come out is known by construction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from synthetic import deployment
from typer.testing import CliRunner

from nightrec import cli, quality
from nightrec.config import Config, load
from nightrec.evaluation import ablation, protocol, trials
from nightrec.evaluation.ablation import Variant
from nightrec.evaluation.lists import DEEP
from nightrec.evaluation.space import with_settings
from nightrec.evaluation.trials import NDCG, Bench
from nightrec.metrics import bootstrap
from nightrec.night import Books, Night
from nightrec.store import arrow
from nightrec.tables import CANDIDATES, RANKED_TOPK, RUNS

SMALL = '[ranker]\nhorizon_days = 7\nhidden = [8]\nepochs = 2\nbatch = 256\npast_cuts = 1\ntrees = 0\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, date]:
    """The deployment's TOML, with models still smaller, and its last ingest date."""
    folder = tmp_path_factory.mktemp("shop")
    toml, written = deployment(folder, users=40, items=40, days=22)
    toml.write_text(toml.read_text().split("[ranker]")[0] + SMALL)
    return toml, written.last


def quiet(_: str) -> Any:
    return nullcontext()


def other_taste(candidates: DataFrame) -> DataFrame:
    """Only what the users of the other taste like."""
    same = F.expr("try_cast(substr(list_key, 2) AS int) % 2 = try_cast(substr(item_id, 2) AS int) % 2")
    return candidates.where((F.col("list_kind") != "user") | ~same)


def answered(monkeypatch: pytest.MonkeyPatch, spark: SparkSession, *words: str) -> dict[str, Any]:
    """What a command answers machines; its session is one that the test run keeps."""

    @contextmanager
    def session(*_: object) -> Iterator[tuple[SparkSession, Any, Callable[[Books], None]]]:
        yield spark, quiet, lambda books: None

    monkeypatch.setattr(quality, "_session", session)
    ended = CliRunner().invoke(cli.app, [*words, "--json"])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_what_is_left_out_is_missed(
    spark: SparkSession, shop: tuple[Path, date], monkeypatch: pytest.MonkeyPatch
) -> None:
    toml, last = shop
    asked = [
        Variant("half", "the own taste", view=other_taste),
        Variant("none", "nothing left out", view=lambda candidates: candidates),
    ]
    told: list[str] = []
    monkeypatch.setattr(quality, "_say", lambda console, line: told.append(line))
    monkeypatch.setattr(ablation, "chosen", lambda config, parts: asked if parts == ["all of these"] else [])
    # Of this one the recall of items is told too.
    monkeypatch.setattr(ablation, "WITHOUT_TEXTS", "the own taste")
    words = ("--config", str(toml), "--cuts", "1", "--days", "7", "--part", "all of these")
    found = answered(monkeypatch, spark, "ablate", *words)
    assert found["cuts"] == [(last - timedelta(days=7)).isoformat()]
    whole, parts = found["whole"], {part["name"]: part for part in found["parts"]}
    assert set(parts) == {variant.name for variant in asked}
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
    # The candidates are as they were made, and each date's were made once.
    warehouse = f"{toml.parent}/reports/ablation/warehouse"
    left = arrow(warehouse, CANDIDATES, {"list_kind": "user"}, ["list_key", "item_id"]).to_pylist()
    assert any((int(row["list_key"][1:]) - int(row["item_id"][1:])) % 2 == 0 for row in left)
    # The last variant's lists go on behind K, as the whole system's do.
    lists = arrow(warehouse, RANKED_TOPK, {"list_kind": "user"}, ["rank"])["rank"]
    assert max(lists.to_pylist()) > 2 * found["k"]
    history = DeltaTable(f"{warehouse}/candidates").history()
    assert sum(commit["operation"] == "WRITE" for commit in history) == 2

    # Started again it judges what is left. The night is there: its lists are the whole system's again.
    cuts: list[date] = []

    def nights(
        spark: SparkSession, config: Config, wanted: list[date], *_: object
    ) -> Iterator[tuple[Night, set[date]]]:
        cuts.extend(wanted)
        for cut in wanted:
            with Night(spark, config, cut, warm=True) as night:
                yield night, set(night.training_cuts())

    def again() -> tuple[Any, list[str]]:
        told.clear()
        found = answered(monkeypatch, spark, "ablate", *words)
        for part in found["parts"]:
            assert part.pop("seconds") > 0
        return found, [line.split(": ")[0] for line in told]

    for part in found["parts"]:
        part.pop("seconds")
    monkeypatch.setattr(protocol, "nights", nights)
    assert again() == (found, ["2 of 2 variants were judged by an earlier start"]) and not cuts
    (judged,) = (toml.parent / "reports/ablation/judged").glob("*/*")
    (judged / "the-own-taste.npz").unlink()
    assert again() == (found, ["1 of 2 variants were judged by an earlier start", "the own taste"]) and len(cuts) == 1


def test_a_trial_runs_again_what_its_settings_change(spark: SparkSession, shop: tuple[Path, date]) -> None:
    settings = protocol.apart(load(shop[0]), "trials")
    told: list[Books] = []
    bench = Bench(spark, settings, protocol.cuts(settings, 1, 7), 7, quiet, told.append)
    bench.prepare(afresh=True)

    def tried(config: Config) -> tuple[float, list[str]]:
        told.clear()
        (cut,) = bench.ndcg(config)
        return cut.mean(NDCG)[0], [books.stage for books in told]

    own, stages = tried(settings)
    assert stages.count("candidates") == stages.count("als_item_factors") == 2 and stages[-1] == "ranked_topk"
    # Of the same examples.
    ranked = ["ranker_model", "ranked_topk"]
    assert tried(with_settings(settings, {"ranker.dropout": 0.5}))[1] == ranked
    # Of each training a run: factors of the past night and of the cut, a ranker for either settings.
    runs = arrow(settings.paths.warehouse, RUNS, columns=["kind", "curves"]).to_pylist()
    assert sorted(row["kind"] for row in runs) == ["als", "als", "ranker", "ranker"]
    assert all(dict(row["curves"])["network_binary/valid_ndcg"] for row in runs if row["kind"] == "ranker")
    _, stages = tried(with_settings(settings, {"als.alpha": 0.1, "als.rank": 2}))
    assert stages.count("candidates") == 2 and not {"item_profiles", "user_embeddings"} & set(stages)
    # Of the trial before, only what this one made anew is left.
    models = arrow(settings.paths.warehouse, CANDIDATES, columns=["als_model"])["als_model"].unique()
    assert len(models) == 2
    # Whatever was tried in between, the same settings make the same lists.
    assert tried(settings)[0] == own


class Peak:
    """A bench on which every user is served .1 better with twice the dropout."""

    def __init__(self, spark: SparkSession, config: Config, cuts: list[date], days: int, *_: object) -> None:
        self.spark, self.config, self.cuts, self.days = spark, config, cuts, days

    def prepare(self, *, afresh: bool) -> None:
        assert afresh

    def ndcg(self, config: Config) -> list[bootstrap.Resampled]:
        sums = np.zeros((2, 1, 1 + bootstrap.RESAMPLES))
        bootstrap.add(np.arange(30, dtype=np.uint64), np.full((30, 1), config.ranker.dropout), sums)
        return [bootstrap.Resampled((NDCG,), sums[0, :, 0], sums[1, :, 0], sums[0, :, 1:], sums[1, :, 1:])]


def test_a_search_ends_in_a_config_that_nights_take(
    spark: SparkSession, shop: tuple[Path, date], monkeypatch: pytest.MonkeyPatch
) -> None:
    toml, last = shop
    monkeypatch.setattr(trials, "Bench", Peak)
    yesterday = last - timedelta(days=1)
    words = ("--config", str(toml), "--cuts", "1", "--days", "6", "--date", yesterday.isoformat())
    found = answered(
        monkeypatch, spark, "tune", *words, "--sampler", "grid", "--key", "ranker.dropout", "--trials", "9"
    )
    assert found["cuts"] == [(yesterday - timedelta(days=6)).isoformat()] and len(found["trials"]) == 4
    assert found["is_better"] and found["best"]["settings"] == {"ranker.dropout": 0.5}
    assert load(Path(found["file"])).ranker.dropout == 0.5 and Path(found["file"]) == toml.with_name("tuned.toml")
    rows = arrow(f"{toml.parent}/reports/tuning/warehouse", RUNS, columns=["kind"]).to_pylist()
    assert [row["kind"] for row in rows] == ["trial"] * 4
    curves = (toml.parent / "reports/tuning/tensorboard").glob("trial-*/events.out.tfevents.*")
    assert len({path.parent for path in curves}) == 4
    # What tune writes is not what it starts from.
    assert CliRunner().invoke(cli.app, ["tune", "--config", found["file"]]).exit_code != 0
