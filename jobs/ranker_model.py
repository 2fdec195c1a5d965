"""ranker_model: the network that orders candidates, trained by Horovod, and the trees beside it, by xgboost on Spark.

Grain: one row of ranker_models per model.

    spark-submit jobs/ranker_model.py --config nightrec.toml --date 2026-03-10

The session needs horovod.processes task slots at once. Weights: MODEL_ID/model.safetensors under paths.models.
"""

from functools import partial
from pathlib import Path

from nightrec.errors import BadInput
from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.models import ranker_model_id
from nightrec.night import Night, main
from nightrec.ranker import members, model, trees
from nightrec.ranker.examples import thinned
from nightrec.ranker.train import train
from nightrec.runs import Run, record
from nightrec.store import dataset
from nightrec.tables import RANKER_EXAMPLES, RANKER_MODELS


def run(night: Night) -> None:
    """Train as of the night's date; the same date and settings replace the same model.

    What is blended how is decided on the latest cut, which the trees then learn from too.
    """
    settings, horovod, key = night.config.ranker, night.config.horovod, {"as_of_date": night.date}
    model_id = ranker_model_id(night.date, night.config)
    if not night.store.rows(RANKER_EXAMPLES, key):
        raise BadInput(f"ranker_examples: no example as of {night.date}; run ranker_examples for this date first")
    versions = {RANKER_EXAMPLES.name: night.store.version(RANKER_EXAMPLES)}
    examples = night.store.read(RANKER_EXAMPLES, key)
    earlier = trees.trained(examples.where("split = 'train'"), settings, horovod.processes) if settings.trees else {}
    read = partial(dataset, night.store.warehouse, RANKER_EXAMPLES, key)
    training = partial(train, read, settings, earlier)
    trained = on_executors(night.spark, training, horovod.processes, horovod.start_timeout_s)[0]
    used = set(trees.KINDS) & set(trained.blend.weight)
    every = thinned(examples, negatives_share=settings.negatives_share, seed=settings.seed)
    final = trees.trained(every, settings, horovod.processes) if used else {}
    weights = f"{model_id}/model.safetensors"
    blob = members.packed(trained.network, final, trained.blend)
    sha256 = model.write(blob, Path(night.config.paths.models) / weights)
    row = {
        **key, "model_id": model_id, "weights": weights, "weights_sha256": sha256, "features": list(FEATURES),
        "settings": {name: str(value) for name, value in settings.model_dump().items()}, "data_versions": versions,
        "processes": horovod.processes, "best_epoch": trained.best_epoch, "epochs": trained.epochs,
        "choices": trained.choices,
    }
    curves = {name: [epoch[name] for epoch in trained.epochs] for name in trained.epochs[0] if name != "epoch"}
    record(night.store, night.config.paths.reports, Run(
        "ranker", model_id, night.date, settings.model_dump(),
        {f"ndcg_{name}": worth for name, worth in trained.choices.items()}, curves, versions,
    ))
    night.book("written", night.store.put(RANKER_MODELS, [row], {**key, "model_id": model_id}).rows, RANKER_MODELS.name)


if __name__ == "__main__":
    main(run)
