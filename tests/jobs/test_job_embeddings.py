"""The two embedding jobs over two nights: only new texts are encoded, and running again changes nothing."""

import datetime as dt
import hashlib
from typing import Any

import numpy as np
import pytest
from nightrec_jobs import item_embeddings, user_embeddings

from nightrec.config import Config
from nightrec.embeddings.encode import Settings, as_matrix, encode
from nightrec.embeddings.encoder import loaded
from nightrec.errors import UsageError
from nightrec.night import Night
from nightrec.store import arrow, version
from nightrec.tables import ITEM_EMBEDDINGS, ITEM_PROFILES, USER_EMBEDDINGS, USER_PROFILES

FIRST, SECOND = dt.date(2026, 3, 10), dt.date(2026, 3, 11)


def item(day: dt.date, item_id: str, text: str) -> dict[str, Any]:
    return {"run_date": day, "item_id": item_id, "text": text, "text_hash": hashlib.sha256(text.encode()).hexdigest()}


def user(day: dt.date, user_id: str, text: str | None, recent: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest() if text else None
    return {"run_date": day, "user_id": user_id, "text": text, "text_hash": digest, "recent_items": recent}


@pytest.fixture
def two_nights(night: Night, rows: Any) -> Night:
    items = [
        item(FIRST, "a", "red shoes"),
        item(FIRST, "b", "blue boots"),
        item(FIRST, "c", "red shoes"),  # the text of another item: encoded once
        item(SECOND, "a", "red shoes"),  # as before
        item(SECOND, "b", "green boots"),  # changed
        item(SECOND, "c", "red shoes"),
        item(SECOND, "d", "a hat"),  # new
    ]
    users = [
        user(FIRST, "both", "likes boots", ["a", "b"]),
        user(FIRST, "taste", None, ["b"]),
        user(FIRST, "words", "likes hats", []),
        user(FIRST, "stranger", None, ["unknown"]),  # no text, and an item without a profile: left out
        user(SECOND, "both", "likes boots", ["a", "b"]),  # as before
        user(SECOND, "words", "likes caps", []),  # changed
        user(SECOND, "taste", "likes caps", ["d"]),  # new, and the same as another's
    ]
    for day in (FIRST, SECOND):
        for table, values in ((ITEM_PROFILES, items), (USER_PROFILES, users)):
            night.store.replace(
                table, rows(table, [row for row in values if row["run_date"] == day]), {"run_date": day}
            )
    return night


def vectors(night: Night, table: Any, key: str, **where: Any) -> dict[str, Any]:
    found = arrow(night.config.paths.warehouse, table, where).to_pylist()
    assert len({row[key] for row in found}) == len(found)
    return {row[key]: np.array(row["vector"], dtype=np.float32) for row in found}


def test_only_new_texts_are_encoded(two_nights: Night, config: Config) -> None:
    first, second = two_nights, two_nights.at(SECOND)
    warehouse = config.paths.warehouse

    def fates(night: Night, stage: str, job: Any) -> tuple[int, int]:
        books = night.run(stage, job)
        return books.rows("encoded"), books.rows("reused")

    # The first night: two texts of three items. Again: none, and nothing is committed.
    assert fates(first, "item_embeddings", item_embeddings.run) == (2, 0)
    before = version(warehouse, ITEM_EMBEDDINGS)
    assert fates(first, "item_embeddings", item_embeddings.run) == (0, 2)
    assert version(warehouse, ITEM_EMBEDDINGS) == before
    # The second night: one changed and one new text; "red shoes" is there already.
    assert fates(second, "item_embeddings", item_embeddings.run) == (2, 1)
    by_hash = vectors(first, ITEM_EMBEDDINGS, "text_hash", encoder=config.encoder.id)
    assert len(by_hash) == 4
    np.testing.assert_allclose([np.linalg.norm(v) for v in by_hash.values()], 1.0, atol=1e-3)

    encoder = loaded(config.encoder.path, config.encoder.revision, config.encoder.max_tokens, 1)
    red, blue, boots, hats = encoder.encode(["red shoes", "blue boots", "likes boots", "likes hats"], batch_tokens=2048)
    assert by_hash[hashlib.sha256(b"red shoes").hexdigest()] @ red >= 0.9995

    assert fates(first, "user_embeddings", user_embeddings.run) == (2, 0)
    users = vectors(first, USER_EMBEDDINGS, "user_id", run_date=FIRST)
    taste = red + blue / 1.1
    both = 0.8 * taste / np.linalg.norm(taste) + 0.2 * boots
    expected = {"both": both / np.linalg.norm(both), "taste": blue, "words": hats}
    assert {name: round(float(vector @ expected[name]), 3) for name, vector in users.items()} == dict.fromkeys(
        expected, 1.0
    )
    # Again: what the night itself holds is reused, and the rows stay as they were.
    assert fates(first, "user_embeddings", user_embeddings.run) == (0, 2)
    again = vectors(first, USER_EMBEDDINGS, "user_id", run_date=FIRST)
    assert all(np.array_equal(again[name], users[name]) for name in users)
    # The next night: "likes boots" is reused from the night before, "likes caps" encoded once for two users.
    assert fates(second, "user_embeddings", user_embeddings.run) == (1, 1)
    assert set(vectors(first, USER_EMBEDDINGS, "user_id", run_date=SECOND)) == {"both", "words", "taste"}
    assert np.array_equal(vectors(first, USER_EMBEDDINGS, "user_id", run_date=FIRST)["words"], users["words"])


def test_empty_night_writes_no_vector(night: Night, config: Config) -> None:
    for stage, job in (("item_embeddings", item_embeddings.run), ("user_embeddings", user_embeddings.run)):
        books = night.run(stage, job)
        assert (books.rows("encoded"), books.rows("reused")) == (0, 0)
    assert version(config.paths.warehouse, ITEM_EMBEDDINGS) <= 0  # created, at most
    assert arrow(config.paths.warehouse, USER_EMBEDDINGS).num_rows == 0


def test_wrong_weights_stop_before_any_task(spark: Any, config: Config) -> None:
    texts = spark.createDataFrame([("h", "text")], "text_hash string, text string")
    with pytest.raises(UsageError, match="says 000000000000"):
        encode(texts, 1, Settings(config.encoder.path, "000000000000", 2048, 64))


def test_every_row_comes_back_whatever_the_tasks(spark: Any, config: Config) -> None:
    # Nine texts of up to 64 tokens in batches of 256 tokens: three tasks, capped at the default parallelism.
    texts = spark.createDataFrame([(f"h{n}", f"thing number {n}") for n in range(9)], "text_hash string, text string")
    frame = encode(texts, 9, Settings(config.encoder.path, config.encoder.revision, 256, 64))
    assert frame.rdd.getNumPartitions() == min(3, spark.sparkContext.defaultParallelism)
    found = frame.toArrow().combine_chunks().sort_by("text_hash")
    assert found["text_hash"].to_pylist() == [f"h{n}" for n in range(9)]
    encoder = loaded(config.encoder.path, config.encoder.revision, 64, 1)
    reference = encoder.encode([f"thing number {n}" for n in range(9)], batch_tokens=2048)
    assert (as_matrix(found["vector"].combine_chunks()) * reference).sum(axis=1).min() >= 0.9995
