"""Whole nights of a planted shop that are broken off, taken up, compared, built again, and gone back from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest
from processes import MARK, alive, marked
from pyspark.sql import SparkSession
from spark_commands import CHECKOUT, environment, standalone_cluster, wait_for
from synthetic import deployment

from nightrec import config as configuration
from nightrec import failpoint, runner
from nightrec.models import als_model_id
from nightrec.night import Night
from nightrec.past.undo import kept, served
from nightrec.pipeline import NIGHT
from nightrec.store import arrow, rows
from nightrec.tables import NIGHT_MODELS, PUBLISHED_TOPK, RANKED_TOPK

pytestmark = pytest.mark.usefixtures("interpreted")


@dataclass
class Shop:
    """A deployment and what was told while its nights ran."""

    config: Path
    first: date
    stages: list[list[str]] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)

    @property
    def warehouse(self) -> str:
        return configuration.load(self.config).paths.warehouse

    def run(self, spark: SparkSession, night: date, since: str | None = None) -> list[str]:
        """Run a night; the stages that ran, with their dates where it is another."""
        self.stages.append([])
        self.told.append([])
        with Night(spark, configuration.load(self.config), night, warm=True) as opened:
            for books in runner.run(opened, lambda _: nullcontext(), since, self.told[-1].append):
                self.stages[-1].append(books.stage if books.date == night else f"{books.stage} {books.date}")
        return self.stages[-1]


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Three nights; the first was broken off in its training, then after it, then finished."""
    config, made = deployment(tmp_path_factory.mktemp("shop"), past_cuts=1, users=24, items=30, days=26)
    shop = Shop(config, made.last - timedelta(days=2))
    with pytest.MonkeyPatch.context() as patch:
        for place in ("ranker_models.before_commit", "als_item_factors.before_commit", "ranked_topk.before_commit"):
            failpoint._passed.clear()
            patch.setenv(failpoint.PLACE, f"{place}:error")
            with pytest.raises(OSError, match=place.partition("#")[0]):
                shop.run(spark, shop.first)
    for n in range(3):
        shop.run(spark, shop.first + timedelta(days=n))
    return shop


def test_a_night_goes_on_at_the_first_stage_that_is_not_done(shop: Shop, spark: SparkSession) -> None:
    """Broken off four times over: in the training before the ranker, before the item factors, and at the lists."""
    eve = shop.first - timedelta(days=1)
    begun, ranker, lists, rest, *_ = shop.stages
    assert begun[0] == "clean_events" and f"ranker_examples {eve}" == begun[-1]
    assert ranker == [f"ranker_model {eve}"]
    names = [stage.name for stage in NIGHT]
    place = names.index("ranked_topk")
    assert lists == [f"als_item_factors {eve}", *names[1:place]]
    assert rest == names[place:]
    assert shop.told[1][0].startswith(f"night {shop.first}: clean_events done before, skipped; goes on with item_prof")
    assert shop.told[1][1] == f"training as of {eve}: {len(begun) - 1} of {len(begun) + 1} steps done before, skipped"
    assert f"clean_events to {names[place - 1]} done before, skipped; goes on with ranked_topk" in shop.told[3][0]
    # not with factors of a past night that was rebuilt for the training
    models = arrow(shop.warehouse, NIGHT_MODELS, {"run_date": shop.first}).to_pylist()[0]
    assert models["als_model"] == als_model_id(eve, configuration.load(shop.config))
    # the last night, once more: nothing is left to do, and nothing is written
    last = shop.first + timedelta(days=2)
    before = rows(spark, shop.warehouse, RANKED_TOPK).inputFiles()
    assert shop.run(spark, last) == []
    assert shop.told[-1] == [f"night {last}: all {len(names)} stages are done, of what lies there now; nothing is left"]
    assert rows(spark, shop.warehouse, RANKED_TOPK).inputFiles() == before


def test_a_night_filled_in_afterwards_does_not_replace_what_is_served(shop: Shop, spark: SparkSession) -> None:
    second, last = (shop.first + timedelta(days=n) for n in (1, 2))
    before = arrow(shop.warehouse, PUBLISHED_TOPK).sort_by("list_id")
    assert shop.run(spark, second, "audit") == ["audit", "published_topk", "export", "outcomes"]
    now = served(shop.warehouse)
    assert now is not None and now.night == last
    assert arrow(shop.warehouse, PUBLISHED_TOPK).sort_by("list_id") == before
    assert [each.night for each in kept(shop.warehouse, 30)] == [last, second, shop.first]


def replayed(shop: Shop, folder: Path, spark: str) -> subprocess.Popen[bytes]:
    """`nightrec replay` of the last night, begun, under other settings of Spark; in `folder` come the places that it
    passes, what it found and what it said."""
    config = shop.config.with_name(f"{folder.name}.toml")
    config.write_text(f'extends = "nightrec.toml"\n[spark]\n{spark}')
    code = "import sys; from nightrec.cli import main; main()"
    night = f"{shop.first + timedelta(days=2)}"
    more = environment(PYTHONPATH=str(CHECKOUT / "libs"), NIGHTREC_FAILPOINT_LOG=str(folder / "places"))
    with (folder / "found").open("wb") as found, (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", code, "replay", night, "--config", str(config), "--json"], cwd=folder, env=more,
            stdin=subprocess.DEVNULL, stdout=found, stderr=said,
        )  # fmt: skip


def assert_equal(folder: Path, begun: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a replay: every table of the night is there again, each equal."""
    assert begun.wait(timeout=590) == 0, (folder / "said").read_text()[-3000:] + (folder / "found").read_text()[-3000:]
    found = json.loads((folder / "found").read_text())
    assert found["is_equal"] and found["said"] == []
    tables = {table["table"]: table["rows"] for table in found["tables"]}
    assert {"clean_events", "candidates", "ranked_topk", "published_topk", "outcomes"} <= tables.keys()
    assert tables["ranked_topk"][0] > 100


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_night_built_again_on_one_core_is_equal(shop: Shop, tmp_path: Path) -> None:
    assert_equal(tmp_path, replayed(shop, tmp_path, 'master = "local[1]"\npartitions = 3\n'))


@pytest.mark.timeout(600)
def test_a_night_built_again_by_two_executors_of_which_one_is_killed_is_equal(shop: Shop, tmp_path: Path) -> None:
    with standalone_cluster(tmp_path) as cluster:
        begun = replayed(shop, tmp_path, (
            f'master = "{cluster.master}"\npartitions = 3\n[spark.options]\n"spark.executor.memory" = "1g"\n'
            f'"spark.executor.cores" = "1"\n"spark.executorEnv.{MARK}" = "{tmp_path}"\n'
        ))  # fmt: skip
        # The first stage that works with vectors and trees of the committed models comes next.
        wait_for(tmp_path / "places", "user_profiles.after_commit", within_s=300)
        executors = [pid for pid, command in marked(f"{tmp_path}").items() if "CoarseGrainedExecutor" in command]
        assert len(executors) == 2
        os.kill(executors[0], signal.SIGKILL)
        assert_equal(tmp_path, begun)
        assert cluster.log.read_text().count("Launching executor app-") == 3
    assert not alive(f"{tmp_path}")
