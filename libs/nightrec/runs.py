"""Every training and every trial of settings, written down: a row of `runs`, and curves for TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from nightrec.store import Store
from nightrec.tables import RUNS


@dataclass(frozen=True)
class Run:
    """A training (its model's id) or a trial: with which settings, what came out of it, and how it got there.

    `curves` hold a value per iteration, epoch or cut.
    """

    kind: str
    run_id: str
    as_of_date: date
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
    data_versions: Mapping[str, int] = field(default_factory=dict)


def record(store: Store, reports: str, run: Run) -> None:
    """Write the run's row, over an earlier one of its id, and its curves below REPORTS/tensorboard.

    TensorBoard gets nothing where the reports do not lie in a folder of this machine.
    """
    row = {
        "kind": run.kind,
        "run_id": run.run_id,
        "as_of_date": run.as_of_date,
        "settings": {name: str(value) for name, value in run.settings.items()},
        "figures": dict(run.figures),
        "curves": {name: list(values) for name, values in run.curves.items()},
        "data_versions": dict(run.data_versions),
    }
    store.put(RUNS, [row], {"as_of_date": run.as_of_date, "run_id": run.run_id})
    if "://" not in reports:
        draw(Path(reports) / "tensorboard" / run.run_id, run)


def draw(folder: Path, run: Run) -> None:
    """The run for TensorBoard: a point of each curve per step, settings and figures among the HParams."""
    from torch.utils.tensorboard import SummaryWriter

    # Its files are named by the clock: an earlier attempt's would stand beside this one's.
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for name, values in run.curves.items():
            for step, value in enumerate(values, 1):
                writer.add_scalar(name, value, step)
        settings = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in run.settings.items()
        }
        figures = {f"hparam/{name}": value for name, value in run.figures.items()}
        writer.add_hparams(settings, figures, run_name=".")
