"""ranker_model: the network that orders candidates, trained by Horovod, and the trees beside it, by xgboost on Spark.

Grain: one row of ranker_models per model.

    spark-submit jobs/ranker_model.py --config nightrec.toml --date 2026-03-10

The session needs horovod.processes task slots at once. Weights: MODEL_ID/model.safetensors under paths.models.
"""

from functools import partial
from pathlib import Path

from nightrec.contract import Table
from nightrec.errors import BadInput
from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.models import ranker_model_id
from nightrec.night import Night, main
from nightrec.ranker import members, model, trees
from nightrec.ranker.examples import thinned
from nightrec.ranker.texts import Texts
from nightrec.ranker.train import train
from nightrec.store import Where, dataset
from nightrec.tables import (
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    RANKER_EXAMPLES,
    RANKER_MODELS,
    USER_EMBEDDINGS,
    USER_PROFILES,
)


def run(night: Night) -> None:
    """Train as of the night's date; the same date and settings replace the same model.

    What is blended how is decided on the latest cut, which the trees then learn from too.
    """
    settings, horovod, key = night.config.ranker, night.config.horovod, {"as_of_date": night.date}
    encoder = night.config.encoder.id
    model_id = ranker_model_id(night.date, night.config)
    if not night.store.rows(RANKER_EXAMPLES, key):
        raise BadInput(f"ranker_examples: no example as of {night.date}; run ranker_examples for this date first")
    versions = {RANKER_EXAMPLES.name: night.store.version(RANKER_EXAMPLES)}
    examples = night.store.read(RANKER_EXAMPLES, key)
    earlier = trees.trained(examples.where("split = 'train'"), settings, horovod.processes) if settings.trees else {}
    read = partial(dataset, night.store.warehouse, RANKER_EXAMPLES, key)
    nights: Where = {"run_date": night.config.training_cuts(night.date)}
    kept: list[tuple[Table, Where]] = [
        (ITEM_PROFILES, nights),
        (USER_PROFILES, nights),
        (ITEM_EMBEDDINGS, {"encoder": encoder}),
        (USER_EMBEDDINGS, {**nights, "encoder": encoder}),
    ]
    items, users, of_items, of_users = (partial(dataset, night.store.warehouse, table, where) for table, where in kept)
    texts = Texts(items, users, of_items, of_users, settings.attention) if settings.reads_vectors else None
    versions |= {table.name: night.store.version(table) for table, _ in kept if texts}
    training = partial(train, read, settings, earlier, texts)
    trained = on_executors(night.spark, training, horovod.processes, horovod.start_timeout_s)[0]
    used = set(trees.KINDS) & set(trained.blend.weight)
    every = thinned(examples, negatives_share=settings.negatives_share, seed=settings.seed)
    final = trees.trained(every, settings, horovod.processes) if used else {}
    weights = f"{model_id}/model.safetensors"
    blob = members.packed(trained.network, final, trained.blend, trained.kinds)
    sha256 = model.write(blob, Path(night.config.paths.models) / weights)
    row = {
        **key, "model_id": model_id, "weights": weights, "weights_sha256": sha256, "features": list(FEATURES),
        "settings": {name: str(value) for name, value in {**settings.model_dump(), "encoder": encoder}.items()},
        "data_versions": versions,
        "processes": horovod.processes, "best_epoch": trained.best_epoch, "epochs": trained.epochs,
        "choices": trained.choices, "calibration": trained.calibration,
    }
    night.book("written", night.store.put(RANKER_MODELS, [row], {**key, "model_id": model_id}).rows, RANKER_MODELS.name)


if __name__ == "__main__":
    main(run)
