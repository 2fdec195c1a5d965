"""Search for settings: each trial is what the lists would have been worth at past cuts with its settings.

The search is optuna's and its journal is a file: killed anywhere and started again it goes on. The deployment's own
settings are the first trial, and stay where the best others are not more than one standard error of the paired
difference ahead of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from nightrec.config import Config
from nightrec.errors import BadInput, UsageError
from nightrec.evaluation.pace import Pace
from nightrec.evaluation.space import SPACE, Key, Number, with_settings
from nightrec.evaluation.trials import NDCG, Bench
from nightrec.metrics import bootstrap
from nightrec.metrics.bootstrap import Interval
from nightrec.runs import Run, record
from nightrec.settings import literal
from nightrec.store import Store

Sampler = Literal["grid", "random", "bayesian"]
TUNED = "tuned.toml"
# Points of a grid at most: some days.
GRID = 1000
# Pruned is what could not be trained with its settings.
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Tried:
    """A trial: its number, its settings where they differ from the deployment's own, and its NDCG."""

    number: int
    settings: Mapping[str, Number]
    ndcg: float


@dataclass(frozen=True)
class Tuned:
    """What a search found over the `days` after each of `cuts`: the NDCG at `k` of the deployment's own settings, the
    best trial, how much more it has, and whether that is enough to be taken. `trials`: best first."""

    k: int
    days: int
    cuts: tuple[date, ...]
    own: float
    best: Tried
    gain: Interval
    is_better: bool
    trials: tuple[Tried, ...]


def study_name(config: Config, keys: Sequence[Key], cuts: Sequence[date], days: int) -> str:
    """A name that follows from what is asked: the same question again goes on with the same study."""
    values = config.model_dump(mode="json", exclude={"paths", "spark", "horovod", "gate", "audit", "export"})
    asked = [values, [key.name for key in keys], [cut.isoformat() for cut in cuts], days]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    return f"trial-{cuts[-1]:%Y%m%d}-{digest}"


def tune(
    bench: Bench, keys: Sequence[Key], sampler: Sampler, trials: int | None, minutes: float | None,
    say: Callable[[str], None],
) -> Tuned:  # fmt: skip
    """Try settings until so many trials are done, all starts together, or so many minutes of this one are over."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder, name = Path(bench.config.paths.reports), study_name(bench.config, keys, bench.cuts, bench.days)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal")))
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    own = {key.name: key.of(bench.config) for key in keys}
    bench.prepare(afresh=not study.get_trials())
    resume(study, own)
    # Another start, another part of the sampler's stream.
    study.sampler = _sampler(sampler, bench.config.ranker.seed + len(study.get_trials()))
    left = trials - len(study.get_trials(states=_DONE)) if trials else None
    if sampler == "grid":
        points = asked(study, keys)
        left = points if left is None else min(left, points)
    if left is None or left > 0:
        limit = minutes * 60 if minutes else None
        pace = Pace(left, limit)
        study.optimize(lambda trial: _tried(bench, study, keys, trial, pace, say), n_trials=left, timeout=limit)
    return winner(study.get_trials(states=(TrialState.COMPLETE,)), own, bench)


def resume(study: optuna.Study, own: Mapping[str, Number]) -> None:
    """Ask for the deployment's own settings, and anew for trials that were not brought to an end."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    settled = [_wanted(trial) for trial in study.get_trials(states=(*_DONE, TrialState.WAITING))]
    for wanted in (dict(own), *(_wanted(trial) for trial in study.get_trials(states=(TrialState.FAIL,)))):
        if wanted and wanted not in settled:
            study.enqueue_trial(wanted)
            settled.append(wanted)


def _wanted(trial: FrozenTrial) -> dict[str, Number]:
    """The settings of a trial, also of one that has not begun."""
    wanted: dict[str, Number] = trial.system_attrs.get("fixed_params") or trial.params
    return wanted


def asked(study: optuna.Study, keys: Sequence[Key]) -> int:
    """Ask for every point of the grid that was not tried; how many trials are waiting then.

    By itself: optuna's own sampler of grids cannot end a study that also has a trial beside them (5.0.0).
    """
    points = math.prod(len(key.grid()) for key in keys)
    if points > GRID:
        raise UsageError(f"a grid of {len(keys)} settings has {points:,} points, not up to {GRID}: name some by --key")
    for values in itertools.product(*(key.grid() for key in keys)):
        study.enqueue_trial({key.name: value for key, value in zip(keys, values, strict=True)}, skip_if_exists=True)
    return len(study.get_trials(states=(TrialState.WAITING,)))


def _sampler(name: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """Grids ask for every point beforehand."""
    return optuna.samplers.TPESampler(seed=seed) if name == "bayesian" else optuna.samplers.RandomSampler(seed)


def _tried(
    bench: Bench, study: optuna.Study, keys: Sequence[Key], trial: Trial, pace: Pace, say: Callable[[str], None]
) -> float:
    """The NDCG of a trial over all cuts; kept beside it: the NDCG in each resample, for paired differences."""
    values = {key.name: key.drawn(trial) for key in keys}
    shown = told(_differing(values, bench.config))
    try:
        cuts = bench.ndcg(with_settings(bench.config, values))
    except BadInput as error:
        say(f"trial {trial.number}: nothing, with {shown}: {error}; {pace.told()}")
        raise optuna.TrialPruned from error
    pooled = bootstrap.pooled(cuts)
    if not pooled.counts[0]:
        raise UsageError("nobody did anything after the cuts that could be compared with a list: nothing to tune by")
    ndcg, spread = pooled.mean(NDCG)
    trial.set_user_attr("users", int(pooled.counts[0]))
    trial.set_user_attr("resamples", spread.round(7).tolist())
    curve = [cut.mean(NDCG)[0] for cut in cuts]
    run = Run("trial", f"{study.study_name}-{trial.number:04d}", bench.cuts[-1], values, {NDCG: ndcg}, {NDCG: curve})
    with closing(Store(bench.spark, bench.config.paths.warehouse, run.run_id)) as store:
        record(store, bench.config.paths.reports, run)
    say(f"trial {trial.number}: NDCG@{bench.config.lists.k} {ndcg:.4f} with {shown}; {pace.told()}")
    return ndcg


def _differing(values: Mapping[str, Number], config: Config) -> dict[str, Number]:
    own = {key.name: key.of(config) for key in SPACE}
    return {name: value for name, value in values.items() if value != own[name]}


def told(values: Mapping[str, Number]) -> str:
    """Settings in words."""
    return ", ".join(f"{name} = {value:.4g}" for name, value in values.items()) or "the deployment's own settings"


def winner(complete: Sequence[FrozenTrial], own: Mapping[str, Number], bench: Bench) -> Tuned:
    """Of trials that are done. Raises UsageError where the deployment's own settings are not among them yet."""
    base = next((trial for trial in complete if trial.params == own), None)
    if base is None:
        raise UsageError("not even the deployment's own settings were tried to the end: give it more minutes")
    tried = sorted(complete, key=lambda trial: (-_ndcg(trial), trial.number))
    best = tried[0]
    spread = np.array(best.user_attrs["resamples"]) - np.array(base.user_attrs["resamples"])
    gain = Interval.of(_ndcg(best) - _ndcg(base), spread, best.user_attrs["users"])
    found = [Tried(trial.number, _differing(trial.params, bench.config), _ndcg(trial)) for trial in tried]
    return Tuned(
        bench.config.lists.k, bench.days, tuple(bench.cuts), _ndcg(base), found[0], gain, gain.mean > gain.error,
        tuple(found),
    )  # fmt: skip


def _ndcg(trial: FrozenTrial) -> float:
    assert trial.value is not None  # it is complete
    return trial.value


def write(found: Tuned, config: Path) -> Path:
    """Write TUNED beside the deployment's TOML file, which it extends by the settings that won: perhaps by none."""
    about = f"NDCG@{found.k} over {len(found.cuts)} times {found.days} days, the last from {found.cuts[-1]} on"
    lines = [f"# Made by nightrec tune. {about}:", f"# {verdict(found, config.name)}"]
    lines += [f"extends = {literal(config.name)}"]
    sections: dict[str, list[str]] = {}
    for name, value in (found.best.settings if found.is_better else {}).items():
        section, key = name.split(".")
        sections.setdefault(section, []).append(f"{key} = {literal(value)}")
    for section, entries in sections.items():
        lines += ["", f"[{section}]", *entries]
    file = config.with_name(TUNED)
    written = file.with_suffix(".new")
    written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    written.replace(file)
    return file


def verdict(found: Tuned, config: str) -> str:
    """Who won, in a sentence."""
    gain = f"{found.gain.mean:+.4f}, standard error {found.gain.error:.4f}"
    if found.is_better:
        return f"{found.best.ndcg:.4f} with these settings, {found.own:.4f} with those of {config} ({gain})."
    return (
        f"{found.own:.4f} with the settings of {config}, which stay: the best of the others, {found.best.ndcg:.4f}, is "
        f"not more than one standard error ahead ({gain})."
    )
