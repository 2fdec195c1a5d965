"""Trees as xgboost writes them, looked through before xgboost does: it follows whatever children a file names.

Of 1,000 models with bytes changed at random, some ended the process that loaded them. UBJSON (ubjson.org) is a byte per
type, lengths and big-endian numbers; only what xgboost itself writes is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_NUMBERS = {
    b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8",
}  # fmt: skip
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}
_DEEPEST = 16
_NO_PARENT = 2**31 - 1
# Arrays of a tree: a number per node.
_PER_NODE = (
    "left_children", "right_children", "parents", "split_indices", "split_conditions", "base_weights", "loss_changes",
    "sum_hessian", "default_left", "split_type",
)  # fmt: skip
_CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def check(content: bytes, features: int, objectives: Sequence[str]) -> None:
    """Raise ValueError unless these are trees over so many features that were trained for one of the objectives."""
    model = loads(content)
    try:
        learner = model["learner"]
        booster, about = learner["gradient_booster"], learner["learner_model_param"]
        trees = booster["model"]["trees"]
        found = int(about["num_feature"])
        is_plain = booster["name"] == "gbtree" and learner["objective"]["name"] in objectives
        is_one = int(about["num_class"]) == 0 and int(about["num_target"]) == 1
        counted = int(booster["model"]["gbtree_model_param"]["num_trees"])
        starts = np.asarray(booster["model"]["iteration_indptr"], np.int64)
        names = (learner["feature_names"], learner["feature_types"])
        info = np.asarray(booster["model"]["tree_info"], np.int64)
        base = float(str(about["base_score"]).strip("[]"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"trees without {error}") from None
    if found != features:
        raise ValueError(f"trees over {found} features, expected {features}")
    fits = is_plain and is_one and counted == len(trees) == len(info) and not info.any() and not any(names)
    fits = fits and starts.tolist() == list(range(counted + 1)) and bool(np.isfinite(base))
    if not fits:
        raise ValueError("trees of another kind, or not as many as they say")
    for number, tree in enumerate(trees):
        _check_tree(tree, number, features)


def _check_tree(tree: Any, number: int, features: int) -> None:
    try:
        param = {name: int(value) for name, value in tree["tree_param"].items()}
        arrays = {name: np.asarray(tree[name]) for name in _PER_NODE}
        nodes, categories = param["num_nodes"], [len(tree[name]) for name in _CATEGORIES]
        is_alone = int(tree["id"]) == number and param["num_feature"] == features and not param["num_deleted"]
        is_alone = is_alone and param["size_leaf_vector"] <= 1
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"tree {number} without {error}") from None
    own = np.arange(nodes) if 0 < nodes <= 2**20 else np.arange(0)
    if not len(own) or not is_alone or any(categories) or any(a.shape != own.shape for a in arrays.values()):
        raise ValueError(f"tree {number} is not as large as it says")
    left, right, parents = (arrays[name].astype(np.int64) for name in ("left_children", "right_children", "parents"))
    is_leaf = left == -1
    # Children stand behind their parents: no path comes back to where it was.
    fits = ((left > own) & (left < nodes) & (right > own) & (right < nodes)) | (is_leaf & (right == -1))
    fits &= (parents[own] < own) & (parents >= 0) | (own == 0) & (parents == _NO_PARENT)
    fits &= (arrays["split_indices"] >= 0) & (arrays["split_indices"] < features) & (arrays["split_type"] == 0)
    finite = [np.isfinite(arrays[name].astype(np.float64)).all() for name in ("split_conditions", "base_weights")]
    split = ~is_leaf
    if not fits.all() or not all(finite) or (parents[left[split]] != own[split]).any():
        raise ValueError(f"tree {number} has a node that leads nowhere")
    if (parents[right[split]] != own[split]).any() or (left[split] == right[split]).any():
        raise ValueError(f"tree {number} has a node with two parents")


def loads(content: bytes) -> Any:
    """The value that the bytes are. Raises ValueError where they are none, or go on behind it."""
    reader = _Reader(content)
    value = reader.value(0)
    if reader.at != len(content):
        raise ValueError(f"UBJSON ends at byte {reader.at} of {len(content)}")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count < 0 or self.at + count > len(self.content):
            raise ValueError(f"UBJSON: {count} bytes promised at byte {self.at} of {len(self.content)}")
        self.at += count
        return self.content[self.at - count : self.at]

    def value(self, depth: int) -> Any:
        """The value that begins here."""
        if depth > _DEEPEST:
            raise ValueError("UBJSON: too deep")
        mark = self.take(1)
        if mark in _NUMBERS:
            return self.number(mark)
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark == b"S":
            return self.text()
        if mark == b"{":
            return self.members(depth)
        if mark == b"[":
            return self.elements(depth)
        raise ValueError(f"UBJSON: no value begins with {mark!r}")

    def number(self, mark: bytes) -> Any:
        """One number of a type."""
        kind = np.dtype(_NUMBERS[mark])
        return np.frombuffer(self.take(kind.itemsize), kind)[0].item()

    def length(self) -> int:
        """A length: 64 bits, as xgboost writes all of them."""
        if self.take(1) != b"L":
            raise ValueError(f"UBJSON: no length at byte {self.at - 1}")
        return int(self.number(b"L"))

    def text(self) -> str:
        """A string behind its mark, or a key, which has none."""
        return self.take(self.length()).decode("utf-8")

    def members(self, depth: int) -> Mapping[str, Any]:
        """An object behind its brace."""
        found: dict[str, Any] = {}
        while self.content[self.at : self.at + 1] != b"}":
            key = self.text()
            if key in found:
                raise ValueError(f"UBJSON: {key[:40]!r} twice")
            found[key] = self.value(depth + 1)
        self.at += 1
        return found

    def elements(self, depth: int) -> Any:
        """An array behind its bracket: of one type and counted, or counted."""
        mark = self.take(1)
        if mark == b"$":
            kind = self.take(1)
            if kind not in _NUMBERS or self.take(1) != b"#":
                raise ValueError(f"UBJSON: an array of {kind!r}")
            count, form = self.length(), np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.take(count * form.itemsize), form)
        if mark != b"#":
            raise ValueError("UBJSON: an array without its length")
        count = self.length()
        if not 0 <= count <= len(self.content) - self.at:
            raise ValueError(f"UBJSON: an array of {count}")
        return [self.value(depth + 1) for _ in range(count)]
