"""The search: what it tries, that it goes on after a kill, who wins, and the file that nights take."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from pyspark.sql import SparkSession

from nightrec.config import Config, load
from nightrec.errors import BadInput, UsageError
from nightrec.evaluation import tuning
from nightrec.evaluation.space import SPACE, Key, searched, with_settings
from nightrec.evaluation.trials import NDCG, SECTIONS
from nightrec.metrics import bootstrap
from nightrec.metrics.bootstrap import Interval
from nightrec.pipeline import STAGES
from nightrec.store import arrow
from nightrec.tables import RUNS

CUTS = [dt.date(2026, 3, 1), dt.date(2026, 3, 15)]


@dataclass
class Peak:
    """A bench whose lists are best at rank 100, and no use at all beyond 120; it keeps what it was asked for."""

    spark: SparkSession
    config: Config
    ends_after: int = 99
    end: type[BaseException] = SystemExit
    cuts: list[dt.date] = field(default_factory=lambda: CUTS)
    days: int = 14
    asked: list[int] = field(default_factory=list)
    afresh: list[bool] = field(default_factory=list)

    def prepare(self, *, afresh: bool) -> None:
        self.afresh.append(afresh)

    def ndcg(self, config: Config) -> list[bootstrap.Resampled]:
        if len(self.asked) == self.ends_after:
            raise self.end
        self.asked.append(config.als.rank)
        if config.als.rank > 120:
            raise BadInput("nothing to learn from")
        figures = 0.5 - abs(np.log(config.als.rank / 100)) / 10 + np.random.default_rng(3).normal(0, 0.01, (50, 1))
        sums = np.zeros((2, 1, 1 + bootstrap.RESAMPLES))
        bootstrap.add(np.arange(50, dtype=np.uint64), figures, sums)
        resampled = bootstrap.Resampled((NDCG,), sums[0, :, 0], sums[1, :, 0], sums[0, :, 1:], sums[1, :, 1:])
        return [resampled] * len(self.cuts)


def apart(config: Config, tmp_path: Path) -> Config:
    return config.model_copy(update={"paths": config.paths.model_copy(update={"reports": str(tmp_path / "tuning")})})


def test_every_key_is_a_setting_and_every_stage_is_known() -> None:
    names = [key.name for key in SPACE]
    assert len(set(names)) == len(names)
    for key in SPACE:
        assert key.low <= key.of(Config()) <= key.high and type(key.low) is type(key.high), key.name
        for value in (key.low, key.high):
            assert key.of(with_settings(Config(), {key.name: value})) == value
        # A stage of which nobody knows that it follows from this setting would not run again.
        section = key.name.split(".")[0]
        assert section == "ranker" or any(section in sections for sections in SECTIONS.values())
    assert set(SECTIONS) < {stage.name for stage in STAGES}
    assert Key("a.b", 1, 100, log=True).grid() == [1, 10, 100] and Key("a.b", 0.0, 1.0).grid() == [0.0, 0.5, 1.0]


def test_bounds_reach_to_the_deployment_and_what_is_off_stays_off() -> None:
    config = with_settings(Config(), {"als.rank": 8, "candidates.linear": 0})
    keys = {key.name: key for key in searched(config, [])}
    assert (keys["als.rank"].low, keys["als.rank"].high) == (8, 128) and "candidates.linear" not in keys
    assert [key.name for key in searched(config, ["als.alpha"])] == ["als.alpha"]
    with pytest.raises(UsageError, match=r"not searched: als.seed, candidates.linear; there are als.rank"):
        searched(config, ["als.seed", "candidates.linear"])


@pytest.mark.parametrize(
    ("sampler", "end"),
    # Of a killed process nothing is told to the study; an interrupted one tells that the trial failed.
    [("bayesian", SystemExit), ("random", KeyboardInterrupt), ("grid", SystemExit), ("grid", KeyboardInterrupt)],
)
def test_an_ended_search_goes_on(
    spark: SparkSession, config: Config, tmp_path: Path, sampler: Any, end: type[BaseException]
) -> None:
    config = apart(config, tmp_path)
    keys = searched(config, ["als.rank"])
    told: list[str] = []
    with pytest.raises(end):
        tuning.tune(first := Peak(spark, config, 1, end), keys, sampler, 9, None, told.append)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "tuning/journal")))
    trials = optuna.load_study(study_name=tuning.study_name(config, keys, CUTS, 14), storage=storage).get_trials()
    states = [trial.state for trial in trials][:2]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING if end is SystemExit else TrialState.FAIL]
    ended = trials[1].params["als.rank"]

    found = tuning.tune(second := Peak(spark, config), keys, sampler, 5, None, told.append)
    # The deployment's own first, and nothing twice.
    assert first.asked == [32] and (first.afresh, second.afresh) == ([True], [False])
    assert ended in second.asked and 32 not in second.asked
    every = {*first.asked, *second.asked}
    assert every == {32, 16, 45, 128} if sampler == "grid" else len(first.asked + second.asked) == 5
    # Beyond 120 there was nothing to learn from: told, and in no table.
    assert len(told) == len(first.asked + second.asked)
    ranks = [trial.settings.get("als.rank", 32) for trial in found.trials]
    assert set(ranks) == {rank for rank in every if rank <= 120}
    assert sum("nothing to learn from" in line for line in told) == sum(rank > 120 for rank in second.asked)
    best = max(ranks, key=lambda rank: -abs(np.log(rank / 100)))
    assert found.best.settings["als.rank"] == best and found.is_better == (best != 32) and found.gain.low > 0
    assert found.own == pytest.approx(0.5 - np.log(100 / 32) / 10, abs=0.01)
    rows = arrow(config.paths.warehouse, RUNS).to_pylist()
    assert sorted(int(dict(row["settings"])["als.rank"]) for row in rows) == sorted(ranks)
    assert all(dict(row["curves"])[NDCG] == [dict(row["figures"])[NDCG]] * 2 for row in rows)
    again = tuning.tune(third := Peak(spark, config), keys, sampler, 4, None, told.append)
    assert third.asked == [] and again == found


def test_another_question_is_another_study() -> None:
    name = tuning.study_name(Config(), SPACE, CUTS, 14)
    assert name == tuning.study_name(Config(), SPACE, CUTS, 14)
    others = [
        tuning.study_name(with_settings(Config(), {"als.alpha": 3.0}), SPACE, CUTS, 14),
        tuning.study_name(Config(), SPACE[:3], CUTS, 14), tuning.study_name(Config(), SPACE, CUTS[1:], 14),
        tuning.study_name(Config(), SPACE, CUTS, 7),
    ]  # fmt: skip
    assert len({name, *others}) == 5


def trial(number: int, rank: int, users: np.ndarray) -> Any:
    """A finished trial whose users had these figures."""
    drawn = np.random.default_rng(1).poisson(1.0, (1000, len(users)))
    resamples = (drawn * users).sum(1) / drawn.sum(1)
    attributes = {"users": len(users), "resamples": resamples.tolist()}
    key = SPACE[0]
    bounds = optuna.distributions.IntDistribution(int(key.low), int(key.high), log=True)
    found = create_trial(
        params={key.name: rank}, distributions={key.name: bounds}, value=float(users.mean()), user_attrs=attributes
    )
    found.number = number
    return found


def test_the_deployments_own_settings_win_within_a_standard_error(config: Config, tmp_path: Path) -> None:
    bench: Any = Peak(None, config)  # type: ignore[arg-type]
    own = {"als.rank": 32}
    users = np.random.default_rng(2).random(400)
    noise = np.random.default_rng(4).normal(0, 1, 400)
    noise -= noise.mean()
    error = 1 / np.sqrt(400)
    for ahead, wins in ((1.2 * error, True), (0.8 * error, False)):
        better = trial(1, 64, users + noise + ahead)
        found = tuning.winner([trial(0, 32, users), better, trial(2, 16, users)], own, bench)
        assert found.gain.error == pytest.approx(error, rel=0.15) and found.gain.mean == pytest.approx(ahead)
        assert found.is_better is wins and found.best.settings == {"als.rank": 64}
        assert [one.number for one in found.trials] == [1, 0, 2]
    # Ties go to the earlier: the deployment's own.
    found = tuning.winner([trial(0, 32, users), trial(1, 64, users)], own, bench)
    assert not found.is_better and found.best.settings == {} and found.gain.mean == 0
    with pytest.raises(UsageError, match="not even the deployment's own"):
        tuning.winner([better], own, bench)


def test_what_wins_is_a_file_that_extends_the_deployments(tmp_path: Path) -> None:
    toml = tmp_path / "nightrec.toml"
    toml.write_text("[als]\nrank = 16\niterations = 4\n[lists]\nk = 5\n")
    best = tuning.Tried(7, {"als.rank": 64, "ranker.dropout": 0.25, "als.alpha": 2.5}, 0.21)
    gain = Interval(0.01, 0.005, 0.015, 400)
    found = tuning.Tuned(10, 14, tuple(CUTS), 0.2, best, gain, True, (best,))
    file = tuning.write(found, toml)
    assert file == tmp_path / "tuned.toml" and sorted(path.name for path in tmp_path.iterdir()) == [
        "nightrec.toml", "tuned.toml",
    ]  # fmt: skip
    tuned, own = load(file), load(toml)
    assert (tuned.als.rank, tuned.als.alpha, tuned.als.iterations, tuned.ranker.dropout) == (64, 2.5, 4, 0.25)
    assert tuned.lists.k == 5 and tuned.paths == own.paths
    assert "0.2100 with these settings, 0.2000 with those of nightrec.toml (+0.0100" in file.read_text()
    # Who loses changes nothing, but the name stays good.
    tuning.write(tuning.Tuned(10, 14, tuple(CUTS), 0.2, best, gain, False, (best,)), toml)
    assert load(file) == own and "which stay" in file.read_text()


def test_states_of_optuna_are_what_is_taken_for_granted() -> None:
    """A trial that was asked for and not begun has its settings where `resume` looks for them."""
    study = optuna.create_study()
    study.enqueue_trial({"x": 3})
    (waiting,) = study.get_trials(states=(TrialState.WAITING,))
    assert tuning._wanted(waiting) == {"x": 3}
