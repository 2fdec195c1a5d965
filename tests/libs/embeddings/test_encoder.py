"""The encoder against a plain float32 reference, and the mixing of vectors against sums by hand. No Spark."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from nightrec.config import Encoder as Settings
from nightrec.embeddings.encoder import Encoder, batches, loaded, verify
from nightrec.embeddings.users import mix, taste
from nightrec.errors import UsageError

SETTINGS = Settings()
TEXTS = [
    "Toy Story (1995). Animation, Children's, Comedy",
    "a",
    "Сталкер (1979). Drama, Sci-Fi",  # another script
    "white hanging heart t-light holder, " * 40,  # far beyond max_tokens: cut
    "age 24, gender M. likes Drama, War. wrote: loved it",
    "a",  # the same text again
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return loaded(SETTINGS.path, SETTINGS.revision, SETTINGS.max_tokens, 1)


def test_equals_a_plain_float32_reference(encoder: Encoder) -> None:
    import torch
    from transformers import BertModel, BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(SETTINGS.path, local_files_only=True)
    model = BertModel.from_pretrained(SETTINGS.path, local_files_only=True, dtype=torch.float32).eval()
    found = encoder.encode(TEXTS, batch_tokens=64)
    assert (found.dtype, found.shape) == (np.float32, (6, 384))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():  # one text at a time: no padding, so a plain mean over its tokens
            tokens = tokenizer(text, truncation=True, max_length=SETTINGS.max_tokens, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
        assert vector @ mean / np.linalg.norm(mean) >= 0.9995, text


def test_companions_and_order_do_not_matter(encoder: Encoder) -> None:
    whole = encoder.encode(TEXTS, batch_tokens=2048)
    backwards = encoder.encode(TEXTS[::-1], batch_tokens=1)[::-1]
    assert (whole * backwards).sum(axis=1).min() >= 0.9999
    # The same text twice, and a text that ran alone: no neighbour shows.
    np.testing.assert_array_equal(whole[1], whole[5])
    alone = encoder.encode(TEXTS[2:3], batch_tokens=2048)
    np.testing.assert_array_equal(encoder.encode([TEXTS[2], "a much longer text " * 5], 2048)[0], alone[0])
    # Different texts are told apart by far more than that.
    assert whole[0] @ whole[2] < 0.9


def test_a_batch_holds_texts_of_one_length_within_its_budget() -> None:
    lengths = np.array([5, 3, 9, 3, 5, 3, 3])
    found = [chosen.tolist() for chosen in batches(lengths, 10)]
    # Three of 3 tokens fill 9 of 10; two of 5 fill it; 9 alone.
    assert found == [[1, 3, 5], [6], [0, 4], [2]]
    assert [chosen.tolist() for chosen in batches(np.array([9, 4]), 8)] == [[1], [0]]  # longer than the budget: alone
    assert list(batches(np.array([], dtype=np.int64), 8)) == []


def test_revision_is_checked(tmp_path: Path) -> None:
    verify(SETTINGS.path, SETTINGS.revision)
    with pytest.raises(UsageError, match="does not exist; `make install`"):
        verify(tmp_path, "53aa51172d14")
    save_file({"other": np.zeros(3, np.float32)}, weights := tmp_path / "model.safetensors")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    with pytest.raises(
        UsageError, match=rf"has revision {found}.* says 53aa51172d14; .*encoder.revision = \"{found}\""
    ):
        verify(tmp_path, "53aa51172d14")
    weights.write_bytes(b"not weights at all")
    with pytest.raises(UsageError, match=r"^encoder: .* is not taken for safetensors: a header of .* bytes"):
        verify(tmp_path, "53aa51172d14")


def test_taste_is_the_weighted_mean_of_known_recent_items() -> None:
    matrix = np.array([[1, 0], [0, 1]], dtype=np.float32)
    recent = pa.array(
        [
            ["x", "y"],  # newest x: weights 1 and 1 / 1.1
            ["gone", "y"],  # an item without a vector: only y speaks
            [],  # nothing recent
            ["gone"],  # nothing known of it
        ]
    )
    found = taste(recent, pa.array(["x", "y"]), matrix)
    newest = np.array([1, 1 / 1.1]) / np.hypot(1, 1 / 1.1)
    np.testing.assert_allclose(found, [newest, [0, 1], [0, 0], [0, 0]], rtol=1e-6)
    # A slice of a batch starts at an offset of its own.
    np.testing.assert_array_equal(taste(recent.slice(1), pa.array(["x", "y"]), matrix), found[1:])


def test_mix_of_taste_and_text() -> None:
    tastes = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], dtype=np.float32)
    texts = pa.array([[0, 1], None, [0, 1], None], pa.list_(pa.float32()))
    # Both; only a taste; only a text; neither.
    expected = [np.array([0.8, 0.2]) / np.hypot(0.8, 0.2), [0, 1], [0, 1], [0, 0]]
    np.testing.assert_allclose(mix(tastes, texts, 0.2), expected, rtol=1e-6)
    # No item has a vector at all: the text alone.
    np.testing.assert_allclose(mix(np.zeros((4, 0), np.float32), texts, 0.2)[:, 1], [1, 0, 1, 0])
