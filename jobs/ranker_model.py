"""ranker_model: the network that orders candidates, and the trees beside it, trained in Horovod's processes.

Grain: one row of ranker_models per model.

    spark-submit jobs/ranker_model.py --config nightrec.toml --date 2026-03-10

The session needs horovod.processes task slots at once. Weights: MODEL_ID/model.safetensors under paths.models. Where
the log gives nothing to learn from, a row without weights: lists then follow the ladder.
"""

from functools import partial
from pathlib import Path
from typing import Any

from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.models import checkpoint, drop_checkpoints, ranker_model_id
from nightrec.night import Night, main
from nightrec.past.pieces import Where
from nightrec.ranker import members, model
from nightrec.ranker.examples import positives
from nightrec.ranker.texts import Texts
from nightrec.ranker.train import train
from nightrec.runs import Run, record
from nightrec.store import dataset
from nightrec.tables import (
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    RANKER_EXAMPLES,
    RANKER_MODELS,
    USER_EMBEDDINGS,
    USER_PROFILES,
)

NOTHING: dict[str, Any] = {
    "weights": "", "weights_sha256": "", "best_epochs": {}, "epochs": [], "choices": {}, "calibration": [],
}  # fmt: skip
# What heads over text vectors read beside the examples.
OF_TEXTS = (ITEM_PROFILES, USER_PROFILES, ITEM_EMBEDDINGS, USER_EMBEDDINGS)


def run(night: Night) -> None:
    """Train as of the night's date; the same date and settings replace the same model.

    A training that died goes on from its checkpoint.
    """
    key: dict[str, Any] = {"as_of_date": night.date}
    found = positives(night.read(RANKER_EXAMPLES, key))
    ranker = night.config.ranker
    settings = {**ranker.model_dump(), "attention": ranker.attention or 0, "encoder": night.config.encoder.id}
    read = (RANKER_EXAMPLES, *(OF_TEXTS if ranker.reads_vectors else ()))
    row: dict[str, Any] = {
        **key, "model_id": ranker_model_id(night.date, night.config), "features": list(FEATURES),
        "settings": {name: str(value) for name, value in settings.items()},
        "data_versions": {table.name: night.store.version(table) for table in read},
        "processes": night.config.horovod.processes,
    }  # fmt: skip
    # One fold to learn from, one to be judged on.
    is_enough = len(found) > 1
    if not is_enough:
        night.book("unlearned", 1, f"users who acted before and after a cut: in {len(found)} of 2 folds; no ranker yet")
    row |= learned(night, row["model_id"]) if is_enough else NOTHING
    key["model_id"] = row["model_id"]
    night.book("written", night.store.put(RANKER_MODELS, [row], key).rows, RANKER_MODELS.name)
    drop_checkpoints(night.config, row["model_id"])


def learned(night: Night, model_id: str) -> dict[str, Any]:
    """Train, write the weights, and return what ranker_models keeps of it."""
    settings, horovod = night.config.ranker, night.config.horovod
    read = partial(dataset, night.store.warehouse, RANKER_EXAMPLES, {"as_of_date": night.date})
    kept = checkpoint(night.config, model_id), horovod.checkpoint_steps
    training = partial(train, read, settings, texts(night) if settings.reads_vectors else None, *kept)
    times = horovod.start_timeout_s, horovod.deadline_s
    trained = on_executors(night.spark, training, horovod.processes, *times)[0]
    night.clock.add(trained.seconds)
    weights = f"{model_id}/model.safetensors"
    blob = members.packed(trained.networks, trained.trees, trained.blend, trained.kinds)
    curves = {
        f"{network}/{name}": [epoch[name] for epoch in trained.epochs if epoch["network"] == network]
        for network in trained.networks
        for name in ("train_loss", "valid_loss", "valid_ndcg")
    }
    record(night.store, night.config.paths.reports, Run(
        "ranker", model_id, night.date, settings.model_dump(),
        {f"ndcg_{name}": worth for name, worth in trained.choices.items()}, curves,
        {RANKER_EXAMPLES.name: night.store.version(RANKER_EXAMPLES)},
    ))  # fmt: skip
    return {
        "weights": weights, "weights_sha256": model.write(blob, Path(night.config.paths.models) / weights),
        "best_epochs": trained.best_epochs, "epochs": trained.epochs, "choices": trained.choices,
        "calibration": trained.calibration,
    }  # fmt: skip


def texts(night: Night) -> Texts:
    """The text vectors of the training cuts, as each process's host reads them."""
    nights: Where = {"run_date": night.training_cuts()}
    encoder: Where = {"encoder": night.config.encoder.id}
    items, users, of_items, of_users = (
        partial(dataset, night.store.warehouse, table, where)
        for table, where in zip(OF_TEXTS, (nights, nights, encoder, {**nights, **encoder}), strict=True)
    )
    return Texts(items, users, of_items, of_users, night.config.ranker.attention or 0)


if __name__ == "__main__":
    main(run)
