"""ranker_model: the network that orders candidates, trained by Horovod, and the trees beside it, by xgboost on Spark.

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
from nightrec.models import ranker_model_id
from nightrec.night import Night, main
from nightrec.ranker import members, model, trees
from nightrec.ranker.examples import positives, thinned
from nightrec.ranker.texts import Texts
from nightrec.ranker.train import train
from nightrec.runs import Run, record
from nightrec.store import Where, dataset
from nightrec.tables import (
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    RANKER_EXAMPLES,
    RANKER_MODELS,
    USER_EMBEDDINGS,
    USER_PROFILES,
)

NOTHING: dict[str, Any] = {
    "weights": "", "weights_sha256": "", "best_epoch": 0, "epochs": [], "choices": {}, "calibration": [],
}  # fmt: skip
# What heads over text vectors read beside the examples.
OF_TEXTS = (ITEM_PROFILES, USER_PROFILES, ITEM_EMBEDDINGS, USER_EMBEDDINGS)


def run(night: Night) -> None:
    """Train as of the night's date; the same date and settings replace the same model."""
    key: dict[str, Any] = {"as_of_date": night.date}
    found = positives(night.store.read(RANKER_EXAMPLES, key))
    settings = {**night.config.ranker.model_dump(), "encoder": night.config.encoder.id}
    read = (RANKER_EXAMPLES, *(OF_TEXTS if night.config.ranker.reads_vectors else ()))
    row: dict[str, Any] = {
        **key, "model_id": ranker_model_id(night.date, night.config), "features": list(FEATURES),
        "settings": {name: str(value) for name, value in settings.items()},
        "data_versions": {table.name: night.store.version(table) for table in read},
        "processes": night.config.horovod.processes,
    }  # fmt: skip
    lacking = " and ".join(split for split, count in found.items() if not count)
    if lacking:
        night.book("unlearned", 1, f"no {lacking} example of a user who acted before and after a cut: no ranker yet")
    row |= NOTHING if lacking else learned(night, row["model_id"])
    key["model_id"] = row["model_id"]
    night.book("written", night.store.put(RANKER_MODELS, [row], key).rows, RANKER_MODELS.name)


def learned(night: Night, model_id: str) -> dict[str, Any]:
    """Train, write the weights, and return what ranker_models keeps of it.

    What is blended how is decided on the latest cut, which the trees then learn from too.
    """
    settings, horovod, key = night.config.ranker, night.config.horovod, {"as_of_date": night.date}
    examples = night.store.read(RANKER_EXAMPLES, key)
    which = night.store.warehouse, night.date, night.store.changed_at(RANKER_EXAMPLES, key), settings.negatives_share
    with night.clock("trees"):
        learning = examples.where("split = 'train'")
        earlier = trees.kept((*which, "train"), learning, settings, horovod.processes) if settings.trees else {}
    read = partial(dataset, night.store.warehouse, RANKER_EXAMPLES, key)
    training = partial(train, read, settings, earlier, texts(night) if settings.reads_vectors else None)
    with night.clock("network"):
        trained = on_executors(night.spark, training, horovod.processes, horovod.start_timeout_s)[0]
    night.clock.add({"network": -trained.choosing_s, "choosing": trained.choosing_s})
    used = set(trees.KINDS) & set(trained.blend.weight)
    every = thinned(examples, negatives_share=settings.negatives_share, seed=settings.seed)
    with night.clock("trees"):
        final = trees.kept((*which, "all"), every, settings, horovod.processes) if used else {}
    weights = f"{model_id}/model.safetensors"
    blob = members.packed(trained.network, final, trained.blend, trained.kinds)
    curves = {name: [epoch[name] for epoch in trained.epochs] for name in trained.epochs[0] if name != "epoch"}
    record(night.store, night.config.paths.reports, Run(
        "ranker", model_id, night.date, settings.model_dump(),
        {f"ndcg_{name}": worth for name, worth in trained.choices.items()}, curves,
        {RANKER_EXAMPLES.name: night.store.version(RANKER_EXAMPLES)},
    ))  # fmt: skip
    return {
        "weights": weights, "weights_sha256": model.write(blob, Path(night.config.paths.models) / weights),
        "best_epoch": trained.best_epoch, "epochs": trained.epochs, "choices": trained.choices,
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
    return Texts(items, users, of_items, of_users, night.config.ranker.attention)


if __name__ == "__main__":
    main(run)
