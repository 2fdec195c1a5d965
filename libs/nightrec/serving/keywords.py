"""Item-to-item similarity by the words of their texts, each weighed by its rarity: what a user's interests are called.

New items are reached by it before anybody has acted on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from nightrec.serving import held

# A word is two letters or digits at least; scripts that put no blanks between words (Chinese characters, kana) are
# taken character by character, as BERT's tokenizer does.
WORD = r"(?u)[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{2,}"


def neighbours(rows: pa.Table, most: int) -> pa.Table:
    """`item_idx`, `neighbour_idx`, `similarity` (`held.neighbours`) of the items of `candidates.item_rows`."""
    return held.neighbours(
        words(rows["item_id"], rows["text"]), rows["is_available"].to_numpy(), rows["user_count"].to_numpy(), most
    )


def words(item_id: pa.ChunkedArray, text: pa.ChunkedArray) -> Any:
    """How often each word is in each item's `text` (N x V, sparse), in lower case and without accents.

    A text that is nothing but the item's id holds none.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    says = pc.fill_null(pc.not_equal(text, item_id), False).to_numpy()
    texts = text.filter(pa.array(says)).to_pylist()
    vectorizer = CountVectorizer(strip_accents="unicode", token_pattern=WORD, dtype=np.float64)
    tokens = vectorizer.build_analyzer()
    # The vectorizer raises on texts of no words at all.
    if not any(tokens(one) for one in texts):
        return sparse.csr_matrix((len(says), 0))
    found = vectorizer.fit_transform(texts).tocsr()
    lengths = np.zeros(len(says), np.int64)
    lengths[says] = np.diff(found.indptr)
    offsets: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix((found.data, found.indices, offsets), (len(says), found.shape[1]))
