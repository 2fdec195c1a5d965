"""Text vectors for training: files beside the mapped examples, one set per host, read by row number.

Letters: N examples in the order of their file, L lists, M item texts, D width, R recent items. Written only for heads
that read vectors: 4 D bytes per list and per text, 4 R per list, and 4 per example.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from nightrec.errors import BadInput
from nightrec.ranker.dataset import Keys, Read, Split
from nightrec.ranker.heads import Given

Ints = npt.NDArray[np.int32]
# Texts that pass through an attention at once.
_ROWS = 65_536


@dataclass(frozen=True)
class Texts:
    """Where the vectors of the cuts come from: what gives the rows of item_profiles, user_profiles, item_embeddings and
    user_embeddings, of one encoder; `recent` is R."""

    items: Read
    users: Read
    item_vectors: Read
    user_vectors: Read
    recent: int


@dataclass(frozen=True)
class Vectors:
    """`texts` (M + 1, D), of which row 0 is zero and stands for none; of each example its item's row, `items` (N,); of
    each list `users` (L, D), zero where there is none, and the rows of its `recent` items (L, R)."""

    texts: npt.NDArray[np.float32]
    items: Ints
    users: npt.NDArray[np.float32]
    recent: Ints

    @property
    def width(self) -> int:
        """D."""
        return int(self.texts.shape[1])

    def keys(self, attention: Tensor) -> Vectors:
        """With what an `attention` (A, D) makes of each text in place of its vector."""
        blocks = (self.texts[start : start + _ROWS] for start in range(0, len(self.texts), _ROWS))
        found = [(torch.from_numpy(block.copy()).to(attention) @ attention.T).cpu().numpy() for block in blocks]
        return replace(self, texts=np.concatenate(found))

    def given(self, split: Split, rows: npt.NDArray[np.int64]) -> Given:
        """What a head reads of some rows of a split."""
        numbers, lists = np.unique(split.lists[rows], return_inverse=True)
        features, users = torch.from_numpy(split.features[rows]), torch.from_numpy(self.users[numbers])
        return Given.of(features, self.texts, self.items[rows + split.first], lists, users, self.recent[numbers])


_NAMES = ("texts", "items", "users", "recent")


def write(texts: Texts, keys: Keys, folder: Path) -> None:
    """Put the vectors of the lists and items of `keys` into FOLDER/*.npy. Memory: the text hashes, and what the keys
    take; vectors pass through batch by batch. Raises BadInput where no item has a vector."""
    hashes = _strings(texts.item_vectors().to_table(columns=["text_hash"])["text_hash"].combine_chunks())
    first = texts.item_vectors().head(1, columns=["vector"])
    if not len(hashes) or not first.num_rows:
        raise BadInput("item_embeddings: no vector, and ranker.head reads vectors; run item_embeddings first")
    width = len(first["vector"][0])
    held = _file(folder, "texts", (len(hashes) + 1, width), np.float32)
    for batch in texts.item_vectors().to_batches(columns=["text_hash", "vector"]):
        at = pc.index_in(_strings(batch["text_hash"]), value_set=hashes).to_numpy() + 1
        held[at] = _matrix(batch["vector"], width)
    lists = int(keys.lists.max()) + 1
    items = _file(folder, "items", (len(keys.lists),), np.int32)
    users = _file(folder, "users", (lists, width), np.float32)
    recent = _file(folder, "recent", (lists, max(texts.recent, 1)), np.int32)
    for number, cut in enumerate(keys.cut_dates.to_pylist()):
        of_cut = keys.cuts == number
        night = pc.field("run_date") == cut
        known = texts.items().filter(night).to_table(columns=["item_id", "text_hash"])
        ids = _strings(known["item_id"].combine_chunks())
        rows = pc.index_in(_strings(known["text_hash"].combine_chunks()), value_set=hashes).fill_null(-1).to_numpy() + 1
        items[of_cut] = _rows(keys.item_ids, ids, rows)[keys.items[of_cut]]
        list_of = np.full(len(keys.user_ids), -1)
        list_of[keys.users[of_cut]] = keys.lists[of_cut]
        for batch in texts.user_vectors().filter(night).to_batches(columns=["user_id", "vector"]):
            at = _lists(batch, keys, list_of)
            users[at[at >= 0]] = _matrix(batch["vector"], width)[at >= 0]
        for batch in texts.users().filter(night).to_batches(columns=["user_id", "recent_items"]):
            at = _lists(batch, keys, list_of)
            taken = latest(batch["recent_items"], ids, recent.shape[1])
            recent[at[at >= 0]] = np.append(rows, 0)[taken[at >= 0]]


def mapped(folder: Path) -> Vectors:
    """What `write` put there, without reading it."""
    return Vectors(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES))


def _file(folder: Path, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> np.memmap:
    return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape)


def _strings(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())


def _matrix(column: pa.Array, width: int) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return values.reshape(-1, width)


def _lists(batch: pa.RecordBatch, keys: Keys, list_of: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The list of each user of a batch; -1 without."""
    at = pc.index_in(_strings(batch["user_id"]), value_set=_strings(keys.user_ids)).fill_null(-1).to_numpy()
    return np.where(at >= 0, list_of[at], -1)


def _rows(wanted: pa.Array, ids: pa.Array, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row of each id; 0 where it is not among `ids`."""
    at = pc.index_in(_strings(wanted), value_set=ids).fill_null(-1).to_numpy()
    found: npt.NDArray[np.int64] = np.append(rows, 0)[at]
    return found


def latest(recent: pa.ListArray, ids: pa.Array, count: int) -> npt.NDArray[np.int64]:
    """(L, R): places in `ids` of the first R items of each list; -1 for those not there and beyond the list's end."""
    lengths = recent.value_lengths().fill_null(0).to_numpy()
    of = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found = np.full((len(lengths), count), -1, np.int64)
    early = place < count
    places = pc.index_in(_strings(recent.flatten()), value_set=ids).fill_null(-1).to_numpy()
    found[of[early], place[early]] = places[early]
    return found
