"""Ablation and trials over a shop with two planted tastes, on one cut: what must come out is known by construction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from synthetic import deployment
from typer.testing import CliRunner

from nightrec import cli, quality
from nightrec.config import Config, load
from nightrec.evaluation import protocol
from nightrec.evaluation.ablation import Variant, ablate
from nightrec.evaluation.space import with_settings
from nightrec.evaluation.trials import NDCG, Bench
from nightrec.night import Books
from nightrec.store import arrow
from nightrec.tables import CANDIDATES, RUNS

SMALL = '[ranker]\nhorizon_days = 7\nhidden = [8]\nepochs = 2\nbatch = 256\npast_cuts = 1\ntrees = 5\n'


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


def test_what_is_left_out_is_missed(spark: SparkSession, shop: tuple[Path, date]) -> None:
    toml, last = shop
    settings = protocol.apart(load(toml), "ablation")
    asked = [
        Variant("none", "nothing left out", view=lambda candidates: candidates),
        Variant("half", "the own taste", view=other_taste),
        Variant("blends", "the network alone", {"blend": "network"}),
    ]
    told: list[Books] = []
    found = ablate(spark, settings, protocol.cuts(settings, 1, 7), 7, asked, quiet, told.append)
    assert found.cuts == (last - timedelta(days=7),) and found.whole
    parts = {part.name: part for part in found.parts}
    # The same lists again, to the last user.
    same = parts["nothing left out"]
    assert (same.worth.mean, same.worth.low, same.worth.high) == (0, 0, 0) and same.ndcg == found.whole
    gone = parts["the own taste"]
    assert gone.worth.low > 0 and gone.worth.mean == pytest.approx(found.whole.mean - gone.ndcg.mean)
    assert gone.ndcg.users == found.whole.users and set(parts) == {variant.name for variant in asked}
    # Nothing up to the candidates ran twice, and they are as they were made.
    stages = [books.stage for books in told]
    assert stages.count("candidates") == 2 and stages.count("ranker_model") == 1 + len(asked)
    left = arrow(settings.paths.warehouse, CANDIDATES, {"list_kind": "user"}, ["list_key", "item_id"]).to_pylist()
    assert any((int(row["list_key"][1:]) - int(row["item_id"][1:])) % 2 == 0 for row in left)


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
    ranked = ["ranker_examples", "ranker_model", "ranked_topk"]
    assert tried(with_settings(settings, {"ranker.dropout": 0.5}))[1] == ranked
    _, stages = tried(with_settings(settings, {"als.alpha": 0.1, "als.rank": 2}))
    assert stages.count("candidates") == 2 and not {"item_profiles", "user_embeddings"} & set(stages)
    # Of the trial before, only what this one made anew is left.
    models = arrow(settings.paths.warehouse, CANDIDATES, columns=["als_model"])["als_model"].unique()
    assert len(models) == 2
    # Whatever was tried in between, the same settings make the same lists.
    assert tried(settings)[0] == own


def test_the_commands_answer_machines(
    spark: SparkSession, shop: tuple[Path, date], monkeypatch: pytest.MonkeyPatch
) -> None:
    toml, last = shop

    @contextmanager
    def session(*_: object) -> Iterator[tuple[SparkSession, Any, Callable[[Books], None]]]:
        yield spark, quiet, lambda books: None

    # One that the test run keeps.
    monkeypatch.setattr(quality, "_session", session)

    def answered(*words: str) -> dict[str, Any]:
        ended = CliRunner().invoke(cli.app, [words[0], "--config", str(toml), "--cuts", "1", "--days", "7", *words[1:]])
        assert ended.exit_code == 0, (ended.output, ended.exception)
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    found = answered("tune", "--key", "ranker.dropout", "--trials", "2", "--date", last.isoformat(), "--json")
    assert found["cuts"] == [(last - timedelta(days=7)).isoformat()] and len(found["trials"]) == 2
    assert load(toml.with_name("tuned.toml")).ranker.dropout == (
        found["best"]["settings"]["ranker.dropout"] if found["is_better"] else 0.1
    )
    runs = arrow(f"{toml.parent}/reports/tuning/warehouse", RUNS, columns=["kind", "curves"]).to_pylist()
    assert sorted(row["kind"] for row in runs) == ["als", "als", "ranker", "ranker", "trial", "trial"]
    assert all(dict(row["curves"])["valid_ndcg"] for row in runs if row["kind"] == "ranker")
    assert list((toml.parent / "reports/tuning/tensorboard").glob("*/events.out.tfevents.*"))
    found = answered("ablate", "--part", "without als", "--json")
    assert [part["name"] for part in found["parts"]] == ["without als"] and found["whole"]["mean"] > 0
