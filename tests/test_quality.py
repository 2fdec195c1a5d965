"""Trials and searches over a shop with two planted tastes, on one cut: what must come out is known by construction."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from quality_commands import answered, quiet
from synthetic import deployment
from typer.testing import CliRunner

from nightrec import cli
from nightrec.config import Config, load
from nightrec.evaluation import protocol, trials
from nightrec.evaluation.space import with_settings
from nightrec.evaluation.trials import NDCG, Bench
from nightrec.metrics import bootstrap
from nightrec.night import Books
from nightrec.store import arrow
from nightrec.tables import CANDIDATES, RUNS

pytestmark = pytest.mark.usefixtures("interpreted")

SMALL = '[ranker]\nhorizon_days = 7\nhidden = [8]\nepochs = 2\nbatch = 256\npast_cuts = 1\ntrees = 0\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, date]:
    """The deployment's TOML, with models still smaller, and its last ingest date."""
    folder = tmp_path_factory.mktemp("shop")
    toml, written = deployment(folder, users=40, items=40, days=22)
    toml.write_text(toml.read_text().split("[ranker]")[0] + SMALL)
    return toml, written.last


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
