"""A training that is killed and run again ends with the weights of one that nobody disturbed, bit for bit."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest
from test_ranker_train import SETTINGS, planted

from nightrec.config import Ranker
from nightrec.errors import TrainingFailed
from nightrec.launch import on_executors
from nightrec.ranker.train import Trained, train

# 1,200 examples of a fold are 5 steps an epoch.
EVERY = 2
BOTH = SETTINGS.model_copy(update={"loss": "both", "trees": 20})


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("checkpoint") / "examples.parquet")


class Training:
    """A training by two processes, of which one may be killed at a place; `steps` counts those of each attempt."""

    def __init__(self, spark: Any, file: Path, log: Path, settings: Ranker) -> None:
        self.spark, self.log, self.settings = spark, log, settings
        self.read = partial(pads.dataset, file)
        self.steps: list[int] = []

    def run(self, folder: Path | None, kill: tuple[int, str] | None = None, broken: Any = None) -> Trained:
        """To its end. `kill`: which process where; `broken` changes what is loaded from a checkpoint."""
        self.log.unlink(missing_ok=True)
        variables = {"NIGHTREC_FAILPOINT_LOG": str(self.log)}
        try:
            work = partial(train, self.read, self.settings, None, folder, EVERY)
            return on_executors(self.spark, disturbed(work, variables, kill, broken), 2, 60, 60)[0]
        finally:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            places = Counter((pid, place) for pid, place in map(str.split, lines))
            self.steps.append(max([n for (_, place), n in places.items() if place == "ranker_model.step"] or [0]))

    def killed(self, folder: Path, rank: int, place: str) -> None:
        """An attempt in which a process is killed at a place; it is said which one, within half a minute."""
        with pytest.raises(TrainingFailed, match=rf"^training process {rank} of 2 \(pid \d+ on .*SIGKILL"):
            self.run(folder, (rank, place))
        assert time.time() - self.log.stat().st_mtime < 30  # since the last place that anybody reached


def disturbed(work: Any, variables: dict[str, str], kill: tuple[int, str] | None, broken: Any) -> Any:
    """The work of one process under a test's variables. A function within a function: it travels by value."""

    def disturbed() -> Trained:
        import horovod.torch as hvd

        from nightrec import failpoint
        from nightrec.ranker.checkpoint import Kept

        failpoint._passed.clear()  # this process may have been in an attempt before
        fails = {"NIGHTREC_FAILPOINT": f"{kill[1]}:kill"} if kill and hvd.rank() == kill[0] else {}
        os.environ.update(variables | fails)
        loaded = Kept.loaded
        if broken:
            Kept.loaded = lambda kept: (state := loaded(kept)) and broken(state)  # type: ignore[method-assign]
        try:
            found: Trained = work()
            return found
        finally:
            Kept.loaded = loaded  # type: ignore[method-assign]
            for name in variables | fails:
                del os.environ[name]

    return disturbed


def test_kills_all_along_the_way_change_nothing(spark: Any, examples: Path, tmp_path: Path) -> None:
    training = Training(spark, examples, tmp_path / "log", BOTH)
    undisturbed, folder = training.run(None), tmp_path / "checkpoint"
    # On the last fold 3 epochs of each network (15 steps), as many at most from all folds (30 steps), and the trees.
    training.killed(folder, 1, "ranker_model.step#9")  # in the second epoch of the first network
    training.killed(folder, 0, "ranker_model.in_checkpoint#5")  # of what writes: hidden files stay
    assert list(folder.glob(".*"))
    training.killed(folder, 1, "ranker_model.tree#7")
    training.killed(folder, 0, "ranker_model.after_checkpoint#4")
    training.killed(folder, 1, "ranker_model.step#11")
    assert training.run(folder) == undisturbed
    assert not list(folder.glob(".*"))
    # No attempt goes back further than its last checkpoint.
    whole, *attempts = training.steps
    assert whole > 60 and sum(attempts) <= whole + 5 * EVERY
    # All is done: run again, it takes no step and no tree.
    assert training.run(folder) == undisturbed
    assert {line.split()[1] for line in training.log.read_text().splitlines()} == {"ranker_model.in_examples"}


def test_other_data_or_settings_begin_anew(spark: Any, examples: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "checkpoint", tmp_path / "log"
    training = Training(spark, examples, log, SETTINGS)
    undisturbed = training.run(folder)
    # Neither pickles nor half a file are read.
    for file in folder.iterdir():
        np.savez(file, mark=np.array(["x"], object), allow_pickle=True)
    (folder / "fold-1.network_binary.npz").write_bytes(b"PK\x03\x04half")
    assert training.run(folder) == undisturbed
    others = Training(spark, planted(tmp_path / "others.parquet", users=61), log, SETTINGS)
    others.run(folder)
    faster = Training(spark, examples, log, SETTINGS.model_copy(update={"learning_rate": 3e-3}))
    faster.run(folder)
    # Each from its first step: three epochs of five steps to be judged, and at least one of ten to serve.
    assert min(*training.steps, *others.steps, *faster.steps) >= 25


def test_a_checkpoint_that_forgets_anything_is_seen(spark: Any, examples: Path, tmp_path: Path) -> None:
    """The same comparison, with checkpoints of which a part is not restored: it must find other weights."""
    training = Training(spark, examples, tmp_path / "log", SETTINGS)
    undisturbed, folder = training.run(None), tmp_path / "checkpoint"
    # In the network that serves: the one that is judged took 15 steps.
    training.killed(folder, 1, "ranker_model.step#20")
    forgotten = {
        "rows gone, so the masks' stream": lambda state: {**state, "place": state["place"] * [1, 1, 0]},
        "steps of the epoch": lambda state: {**state, "place": state["place"] * [1, 0, 1]},
        "the optimiser's": lambda state: {**state, "optimizer.exp_avg": 0 * state["optimizer.exp_avg"]},
    }
    for part, broken in forgotten.items():
        shutil.copytree(folder, copy := tmp_path / part.split()[0])
        assert training.run(copy, broken=broken).networks != undisturbed.networks, part
    assert training.run(folder) == undisturbed
