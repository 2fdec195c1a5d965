"""als_item_factors: everything that had arrived by the date, factorized; one row per item, kept under a model id.

    spark-submit jobs/als_item_factors.py --config var/demo/nightrec.toml --date 1998-03-01

The session needs horovod.processes task slots at once. runs keeps each iteration's loss.
"""

from __future__ import annotations

from datetime import date

from nightrec.als.factorize import item_factors
from nightrec.models import als_model_id, checkpoint, drop_checkpoints
from nightrec.night import Night, main
from nightrec.runs import Run, record
from nightrec.tables import ALS_ITEM_FACTORS, CLEAN_EVENTS


def run(night: Night) -> None:
    """Train as of the night's date; replace that model's factors, then the run's row.

    A training that died goes on from its last iteration.
    """
    settings, model_id = night.config.als, als_model_id(night.date, night.config)
    key: dict[str, str | date] = {"as_of_date": night.date, "model_id": model_id}
    versions = {CLEAN_EVENTS.name: night.store.version(CLEAN_EVENTS)}
    folder = checkpoint(night.config, model_id)
    frame, losses = item_factors(night.events(), settings, night.config.horovod, night.date, model_id, folder)
    night.replace(ALS_ITEM_FACTORS, frame, key)
    figures, curves = {"loss": losses[-1]}, {"loss": losses}
    run = Run("als", model_id, night.date, settings.model_dump(), figures, curves, versions)
    record(night.store, night.config.paths.reports, run)
    drop_checkpoints(night.config, model_id)


if __name__ == "__main__":
    main(run)
