"""Texts to vectors beside sentence-transformers: the same texts, the same weights, both cores, models loaded.

sentence-transformers as it comes: float32, 32 texts to a batch, one process with a thread per core; in bfloat16 too,
which its users have to ask for. nightrec: two processes of one thread each, as two tasks of Spark would be, and the
same through Spark (`encode` in local[2], from a cached frame to Arrow on the driver). No text is cut by either.
Equal work: the smallest cosine over all texts to the float32 vectors of sentence-transformers.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import measure
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from measure import Report, side_by_side

from nightrec.config import Encoder as Config
from nightrec.config import Spark
from nightrec.embeddings.encode import Settings, as_matrix, count_texts, encode
from nightrec.embeddings.encoder import Vectors, loaded
from nightrec.embeddings.items import item_embeddings
from nightrec.session import session

CORES = 2
LEAST_COSINE = 0.9995
_BRANDS = ("Aurora", "Birch", "Calder", "Dunmore", "Elwood", "Fenwick", "Glenhaven", "Harlow", "Juniper", "Kestrel")
_LOOKS = ("red", "vintage", "folding", "wireless", "ceramic", "oversized", "hand-painted", "waterproof", "organic")
_THINGS = (
    "lantern", "t-light holder", "lunch box", "desk lamp", "rain jacket", "cake tin", "garden chair", "running shoe",
    "alarm clock", "tea towel", "jigsaw puzzle", "phone case", "mixing bowl", "travel mug", "bird feeder", "backpack",
)
_SAYINGS = (
    "made from recycled steel", "ships in a gift box", "fits most standard shelves", "easy to clean",
    "comes with a two-year guarantee", "suitable for children over three", "hand finished by our partners",
    "a favourite of returning customers", "the lid doubles as a plate", "machine washable at 30 degrees",
    "works with batteries or a USB-C cable", "best kept away from direct sunlight", "packed without any plastic",
    "assembly takes about ten minutes", "inspired by mid-century design",
)


def versions() -> dict[str, str]:
    """What the figures depend on."""
    return measure.versions("torch", "transformers", "tokenizers", "sentence-transformers", "pyspark")


def catalogue(count: int, seed: int) -> list[str]:
    """`count` different product texts of 3 to 80 words, half of them shorter than 15: titles, and titles described."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        words = [*(str(rng.choice(part)) for part in (_BRANDS, _LOOKS, _THINGS)), f"no. {rng.integers(10_000)}"]
        wanted = int(np.clip(rng.lognormal(2.7, 0.7), 3, 80))
        while sum(len(part.split()) for part in words) < wanted:
            words.append(str(rng.choice(_SAYINGS)))
        found[" ".join(" ".join(words).split()[:wanted])] = None
    return list(found)


def run(report: Report, *, smoke: bool) -> None:
    """Encode a catalogue, then the few texts of a second night."""
    config = Config()
    count, runs = (60, 1) if smoke else (4000, 3)
    texts = catalogue(count, seed=4)
    cut = 256  # what the folder of this model tells sentence-transformers
    settings = Settings(config.path, config.revision, config.batch_tokens, cut)
    spark = session(Spark(master=f"local[{CORES}]", partitions=CORES, driver_memory="2g"), "embedding", warm=True)
    try:
        case = f"{count} texts"
        _first_night(report, spark, settings, texts, case, runs)
        _second_night(report, spark, settings, texts, "second night")
    finally:
        spark.stop()


def _sentence_transformer(settings: Settings, kind: Any) -> Any:
    """The peer with the same weights. Its parts are named here: the encoder's folder holds no settings of theirs."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    encoder = Transformer(str(settings.folder), model_kwargs={"dtype": kind}, max_seq_length=settings.max_tokens)
    pooling = Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")


def _first_night(report: Report, spark: Any, settings: Settings, texts: list[str], case: str, runs: int) -> None:
    import torch

    torch.set_num_threads(CORES)
    plain, half = (_sentence_transformer(settings, kind) for kind in (torch.float32, torch.bfloat16))
    frame = spark.createDataFrame(_table(texts)).repartition(CORES).cache()
    frame.count()
    vectors: dict[str, Vectors] = {}

    with _processes(settings) as encode_share:
        work = {
            "sentence-transformers": lambda: vectors.update(peer=plain.encode(texts)),
            "sentence-transformers in bfloat16": lambda: vectors.update(half=half.encode(texts)),
            "nightrec, two processes": lambda: vectors.update(bare=encode_share(texts)),
            "nightrec through Spark": lambda: vectors.update(spark=_through_spark(frame, texts, settings)),
        }
        encode_share(texts[:64])  # models loaded, workers started
        _through_spark(frame.limit(64), [], settings)
        plain.encode(texts[:64])
        half.encode(texts[:64])
        seconds = side_by_side(work, runs)
    rates = {
        name: report.figure(case, name, "texts/s", [len(texts) / value for value in values])
        for name, values in seconds.items()
    }
    peer = _unit(vectors["peer"])
    for name in ("bare", "spark", "half"):
        least = float((peer * _unit(vectors[name])).sum(axis=1).min())
        told = f"smallest cosine to float32 sentence-transformers over {len(texts)} texts {least:.5f} ({name})"
        if name == "half":
            report.note(told)
        else:
            report.check(case, least >= LEAST_COSINE, told)
    theirs = rates["sentence-transformers"].median
    for name, ours in (("two processes", "nightrec, two processes"), ("through Spark", "nightrec through Spark")):
        report.goal(f"embedding, {name}, over sentence-transformers", case, rates[ours].median / theirs, 2.0)


def _second_night(report: Report, spark: Any, settings: Settings, texts: list[str], case: str) -> None:
    """One text in a hundred changed, as many new, some items of one text: only what was never seen is encoded."""
    few = max(len(texts) // 100, 2)
    later = [*texts[:-few], *(f"{text}, new edition" for text in texts[-few:]), *catalogue(few, seed=5), *texts[:few]]
    held = spark.createDataFrame(_table(texts)).select("text_hash").cache()
    profiles = spark.createDataFrame(_table(later)).cache()
    expected = set(_table(later)["text_hash"].to_pylist()) - set(_table(texts)["text_hash"].to_pylist())
    held.count(), profiles.count()
    seen: dict[str, Any] = {}

    def night() -> None:
        seen["counts"] = count_texts(profiles, held)
        seen["rows"] = item_embeddings(profiles, held, seen["counts"][0], "encoder", settings).toArrow()

    values = side_by_side({"nightrec": night}, 3)["nightrec"]
    report.figure(case, "nightrec through Spark", "s", values, texts=str(len(set(later))), encoded=str(len(expected)))
    encoded = seen["rows"]["text_hash"].to_pylist()
    same = sorted(encoded) == sorted(expected) and seen["counts"][0] == len(expected)
    report.check(case, same, f"{len(encoded)} encoded, {len(expected)} of {len(set(later))} texts were new or changed")
    report.goal(
        "embedding, texts encoded on a second night over new and changed ones", case, len(encoded) / len(expected), 1.0,
        at_most=True,
    )


def _table(texts: list[str]) -> pa.Table:
    return pa.table({"text_hash": [hashlib.sha256(text.encode()).hexdigest() for text in texts], "text": texts})


def _through_spark(frame: Any, texts: list[str], settings: Settings) -> Vectors:
    """The vectors of `texts`, in their order."""
    rows = encode(frame, max(len(texts), 1000), settings).toArrow()
    place = {name: row for row, name in enumerate(rows["text_hash"].to_pylist())}
    order = [place[name] for name in _table(texts)["text_hash"].to_pylist()]
    return as_matrix(rows["vector"].combine_chunks())[order]


def _unit(vectors: npt.NDArray[Any]) -> Vectors:
    wide = np.asarray(vectors, dtype=np.float32)
    unit: Vectors = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


@contextmanager
def _processes(settings: Settings) -> Iterator[Any]:
    """A function that encodes texts in one process per core, every so-many-th text in each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, mp_context=context) as pool:

        def encode_share(texts: list[str]) -> Vectors:
            shares = [pool.submit(_encoded, settings, texts[share::CORES]) for share in range(CORES)]
            vectors = np.empty((len(texts), 384), dtype=np.float32)
            for share, found in enumerate(shares):
                vectors[share::CORES] = found.result()
            return vectors

        yield encode_share


def _encoded(settings: Settings, texts: list[str]) -> Vectors:
    encoder = loaded(settings.folder, settings.revision, settings.max_tokens, 1)
    return encoder.encode(texts, settings.batch_tokens)
