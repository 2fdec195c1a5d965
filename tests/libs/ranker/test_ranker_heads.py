"""Heads against hand-computed numbers, their vectors in files, and the way through Horovod, a file and Spark."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from nightrec.config import Ranker
from nightrec.errors import BadInput, NightrecError
from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.ranker import dataset, heads, members, model, texts
from nightrec.ranker.blend import Blend
from nightrec.ranker.heads import ATTENTION, Attentive, Bilinear, Cosine, Given, Product
from nightrec.ranker.score import Texts, scored
from nightrec.ranker.train import train
from nightrec.tables import CANDIDATES

# Two lists: the first user likes (1, 0), the second is nobody; of either a candidate (0.6, 0.8) and one without vector.
GIVEN = Given(
    features=torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]]),
    texts=torch.tensor([[0.0, 0.0], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]),
    items=torch.tensor([1, 0, 1, 0]),
    lists=torch.tensor([0, 0, 1, 1]),
    users=torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
    recent=torch.tensor([[2, 3, 0], [0, 0, 0]]),
)
ZERO = torch.tensor(0.0)


def test_bilinear_is_w_u_times_i() -> None:
    head = Bilinear(2, torch.tensor(-3.0))
    head.matrix.data = torch.tensor([[2.0, 7.0], [-1.0, 7.0]])
    head.bias.data = torch.tensor(0.5)
    # W u = (2, -1); times (0.6, 0.8) = 0.4
    assert head.train().scores(GIVEN).tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])
    assert head.eval().scores(GIVEN).tolist() == pytest.approx([-2.1, -2.5, -2.5, -2.5])
    assert Bilinear(2, ZERO).scores(GIVEN).tolist() == pytest.approx([0.6, 0, 0, 0])  # untrained: the cosine


def test_cosine_weighs_dimensions_and_pays_for_it() -> None:
    head = Cosine(2, ZERO)
    assert head.scores(GIVEN).tolist() == pytest.approx([0.6, 0, 0, 0]) and head.penalty(Ranker()).item() == 0
    head.log_weights.data = torch.tensor([math.log(4), 0.0])
    head.factor.data, head.bias.data = torch.tensor(10.0), torch.tensor(1.0)
    # sum w u i / sqrt(sum w u^2 sum w i^2) = 4 x 0.6 / sqrt(4 x (4 x 0.36 + 0.64))
    assert head.scores(GIVEN).tolist() == pytest.approx([1 + 10 * 2.4 / math.sqrt(4 * 2.08), 1, 1, 1])
    assert head.penalty(Ranker(cosine_penalty=0.5)).item() == pytest.approx(0.5 * math.log(4) ** 2)
    assert Bilinear(2, ZERO).penalty(Ranker()) is None
    head.scores(GIVEN).sum().backward()  # type: ignore[no-untyped-call]
    assert head.log_weights.grad is not None and head.log_weights.grad.isfinite().all()


def test_product_is_a_network_over_u_times_i() -> None:
    head = Product(2, ZERO, (2,))
    linear = head.layers[0]
    assert isinstance(linear, nn.Linear)
    linear.weight.data, linear.bias.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0.1, 0.1])
    head.output.weight.data, head.output.bias.data = torch.tensor([[2.0, 5.0]]), torch.tensor([0.25])
    # u times i = (0.6, 0), times D = 1.2; relu(1.3), relu(-1.1); nothing known: relu(0.1) twice
    assert head.scores(GIVEN).tolist() == pytest.approx([2.85, 0.95, 0.95, 0.95])


def test_attention_mixes_the_recent_items_that_are_like_the_candidate() -> None:
    head = Attentive(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]), ZERO, (3,), 2)
    head.attention.data = torch.zeros(ATTENTION, 2)
    head.attention.data[0], head.attention.data[1] = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.5])
    asked = np.array([0.6 + 1.6, -0.6 + 0.4])
    keys = np.array([[1.0, -1.0], [2.0, 0.5]])  # V of (1, 0) and (0, 1); the third recent item has no vector
    share = np.exp(keys @ asked / 4)
    mixed = share / share.sum() @ keys
    inputs = head.inputs(GIVEN)
    assert inputs.shape == (4, 2 + ATTENTION)
    assert inputs[0].tolist() == pytest.approx([1, 5, *(asked * mixed), *[0] * (ATTENTION - 2)], rel=1e-5)
    # Without a vector of its own, or of any recent item, a candidate is its features.
    assert inputs[1:, 2:].abs().max() == 0 and inputs[1:, 0].tolist() == [2, 3, 4]
    perceptron = heads.Network(head.mean, head.std, ZERO, (3,))
    perceptron.load_state_dict({name: value for name, value in head.state_dict().items() if name != "attention"})
    torch.testing.assert_close(head.scores(GIVEN), perceptron(inputs))


def test_attentions_read_keys_as_they_read_vectors() -> None:
    """Of two attentions' keys side by side each finds its own; a ranker of another head reads whole vectors."""
    torch.manual_seed(3)
    width, features, vectors = 40, torch.randn(6, 3), torch.randn(9, 40).numpy()
    vectors[0] = 0
    rows = np.array([1, 2, 3, 0, 5, 1]), np.array([0, 0, 0, 1, 1, 1]), np.array([[6, 7, 8, 1], [4, 6, 0, 0]])

    def read(table: npt.NDArray[np.float32]) -> Given:
        items, lists, recent = rows
        return Given.of(features.double(), table, items, lists, torch.zeros(2, table.shape[1]), recent)

    names = ("network_binary", "network_listwise")
    made = {name: Attentive(torch.zeros(3), torch.ones(3), ZERO, (5,), width).eval() for name in names}
    blend = Blend(dict.fromkeys(names, 0.5), 1.0, 0.0)

    def ranker(networks: Mapping[str, heads.Head]) -> members.Members:
        blobs = {name: model.dumped(network) for name, network in networks.items()}
        return members.unpacked(members.packed(blobs, {}, blend, {}))

    whole = ranker(made)
    keys, short = whole.by_keys()
    assert keys is not None and keys.shape == (2 * ATTENTION, width) == (short.vector_width, whole.vector_width)
    expected = whole.probabilities(features.numpy(), read(vectors))
    found = short.probabilities(features.numpy(), read((vectors @ keys.T).astype(np.float32)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert len(set(found.round(6))) == 6 and short.by_keys()[0] is not None
    product = ranker({name: Product(width, ZERO, (2,)) for name in names})
    assert product.by_keys() == (None, product)
    # A network that the blend has left out is not asked, and reads nothing.
    one = replace(whole, blend=Blend({names[1]: 1.0}, 1.0, 0.0))
    keys, _ = one.by_keys()
    assert keys is not None and (len(keys), one.vector_width) == (ATTENTION, width)
    assert replace(whole, blend=Blend({FEATURES[0]: 1.0}, 1.0, 0.0)).vector_width == 0


SETTINGS = {
    "bilinear": Ranker(head="bilinear"),
    "cosine": Ranker(head="cosine"),
    "product": Ranker(head="product", hidden=(8, 4)),
    "attentive": Ranker(attention=3, hidden=(8, 4)),
    "deep": Ranker(hidden=(8, 4)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_head_comes_back_from_its_file(name: str) -> None:
    torch.manual_seed(2)
    head = heads.made(SETTINGS[name], torch.randn(2), torch.rand(2) + 1, torch.tensor(-0.5), 2).eval()
    for weight in head.parameters():
        weight.data = torch.randn_like(weight)
    blob = model.dumped(head)
    found = model.loaded(blob)
    assert (found.name, type(found)) == (name, type(head)) and not found.training
    assert (found.reads_vectors, found.feature_count) == (name != "deep", 2 if name in ("deep", "attentive") else 0)
    assert torch.equal(found.scores(GIVEN), head.scores(GIVEN))
    head.constant.data.fill_(3.5)
    if name in ("bilinear", "cosine"):
        assert head.scores(GIVEN)[3].item() == pytest.approx(3.0)  # and the shift


# Items by the direction of their text, users by that of their taste; 4 dimensions.
CUTS = (dt.date(2026, 2, 10), dt.date(2026, 2, 24))
WIDTH = 4


def unit(seed: int, count: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


ITEMS, USERS = unit(1, 30), unit(2, 20)


def planted(folder: Path, later: int = 1) -> texts.Texts:
    """20 users, 30 items, two cuts: acted on is what lies in the user's direction. examples.parquet, and the vectors.

    Item 29 has no text, text 0 belongs to item 1 and, at the second cut, to item 0 too; user 19 has no vector. Recent
    are, at either cut, the three items nearest to the user. The users' vectors of the second cut are `later` times
    those of the first.
    """
    nearest = np.argsort(-(USERS @ ITEMS.T), 1)[:, :3]
    recent = [["gone", *(f"i{item:02}" for item in row)] for row in nearest]  # an item that no profile knows
    users = [f"u{n:02}" for n in range(20)]
    hashes = [*(f"h{n:02}" for n in range(29)), "none"]

    def save(name: str, columns: dict[str, Any]) -> texts.Read:
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        return partial(pads.dataset, str(folder / f"{name}.parquet"))

    given = np.random.default_rng(3).normal(size=(2, 20, 30, len(FEATURES))).astype(np.float32)
    likes = USERS @ ITEMS.T > 0.5
    rows = [(cut, user, item) for cut in range(2) for user in range(20) for item in range(30)]
    save("examples", {
        "fold": pa.array([cut for cut, _, _ in rows], pa.int32()),
        "is_lesson": [True] * len(rows),
        "cut_date": [CUTS[cut] for cut, _, _ in rows],
        "user_id": [users[user] for _, user, _ in rows],
        "item_id": [f"i{item:02}" for _, _, item in rows],
        "label": pa.array([float(likes[user, item]) for _, user, item in rows], pa.float32()),
        "kinds": pa.array([[]] * len(rows), pa.list_(pa.string())),
        "rating": pa.nulls(len(rows), pa.float64()),
        "features": pa.array([given[row] for row in rows], pa.list_(pa.float32())),
    })
    nights = [cut for cut in CUTS for _ in range(20)]
    return texts.Texts(
        items=save("items", {
            "run_date": [cut for cut in CUTS for _ in range(30)],
            "item_id": [f"i{n:02}" for n in range(30)] * 2,
            "text_hash": [*hashes, "h01", *hashes[1:]],
        }),
        users=save("users", {"run_date": nights, "user_id": users * 2, "recent_items": recent * 2}),
        item_vectors=save("item_vectors", {
            "text_hash": hashes[:29][::-1], "vector": pa.array(list(ITEMS[:29][::-1]), pa.list_(pa.float32())),
        }),
        user_vectors=save("user_vectors", {
            "run_date": [cut for cut in CUTS for _ in range(19)], "user_id": users[:19] * 2,
            "vector": pa.array([*USERS[:19], *(later * USERS[:19])], pa.list_(pa.float32())),
        }),
        recent=2,
    )


def test_vectors_are_those_of_the_cut(tmp_path: Path) -> None:
    asked = planted(tmp_path, later=-1)
    keys = dataset.write(pads.dataset(str(tmp_path / "examples.parquet")), tmp_path)
    texts.write(asked, keys, tmp_path)
    vectors, examples = texts.mapped(tmp_path), dataset.mapped(tmp_path)
    some = vectors.keys(torch.eye(WIDTH)[:3])
    np.testing.assert_array_equal(some.texts, vectors.texts[:, :3])
    assert some.items is vectors.items and some.recent is vectors.recent
    nearest = np.argsort(-(USERS @ ITEMS.T), 1)[:, 0]
    for cut, split in ((0, examples.before(1)), (1, examples.of(1))):
        rows = np.array([0, 29, 1 + 30 * 7, 19 * 30 + 5])  # items 0, 29 of user 0; item 1 of user 7; item 5 of user 19
        given = vectors.given(split, rows)
        assert given.texts is not None and given.items is not None and given.recent is not None
        text = [ITEMS[(0, 1)[cut]], np.zeros(WIDTH), ITEMS[1], ITEMS[5]]
        np.testing.assert_array_equal(given.pairs[1], text)
        np.testing.assert_array_equal(given.features, split.features[rows])
        sign = 1 - 2 * cut  # the users' vectors of the second cut are turned around
        expected = [sign * USERS[0], sign * USERS[0], sign * USERS[7], np.zeros(WIDTH)]
        np.testing.assert_array_equal(given.pairs[0], expected)
        held = ITEMS[nearest[[0, 7, 19]]]
        held[nearest[[0, 7, 19]] == 29] = 0
        assert (nearest[[0, 7, 19]] != 0).all()
        np.testing.assert_array_equal(given.texts[given.recent], np.stack([np.zeros((3, WIDTH)), held], 1))
        assert len(given.texts) == len(given.texts.unique(dim=0)) and not given.texts[0].any()
    empty = pa.schema({"text_hash": pa.string(), "vector": pa.list_(pa.float32())}).empty_table()
    nothing = partial(pads.dataset, empty)
    with pytest.raises(BadInput, match=r"no vector, and ranker.head reads vectors; run item_embeddings first"):
        texts.write(texts.Texts(asked.items, asked.users, nothing, asked.user_vectors, 2), keys, tmp_path)


@pytest.mark.parametrize("name", ["bilinear", "cosine", "product", "attentive"])
def test_a_head_is_trained_by_two_processes_and_scores_candidates(
    spark: Any, rows: Any, tmp_path: Path, name: str
) -> None:
    asked = planted(tmp_path)
    read = partial(pads.dataset, str(tmp_path / "examples.parquet"))
    more = {"epochs": 40, "learning_rate": 0.05, "batch": 200, "dropout": 0.0, "negatives_share": 1.0, "patience": 40,
            "trees": 0, "loss": "binary"}
    settings = SETTINGS[name].model_copy(update=more)
    one, two = (on_executors(spark, partial(train, read, settings, asked), size, 60)[0] for size in (1, 2))
    assert one.epochs[0] == pytest.approx(two.epochs[0], abs=1e-4)
    # In a random order 30 items with 5 or 6 positives have 0.3. Attention has the features' noise beside it.
    assert two.epochs[two.best_epochs["network_binary"] - 1]["valid_ndcg"] > (0.6 if name == "attentive" else 0.8)

    ranker = members.packed(two.networks, {}, Blend({"network_binary": 1.0}, 2.0, -1.0), {})
    sha256 = model.write(ranker, tmp_path / "model.safetensors")
    values = np.random.default_rng(4).normal(size=(60, len(FEATURES))).astype(np.float32)
    # user 3 with all items, user 19, who has no vector, and one whom nothing is known of
    listed = [(user, item) for user, count in (("u03", 30), ("u19", 20), ("new", 10)) for item in range(count)]
    candidates = rows(CANDIDATES, [
        {"list_kind": "user", "list_key": user, "item_id": f"i{item:02}", "als_rank": number + 1,
         "features": values[number].tolist()}
        for number, (user, item) in enumerate(listed)
    ])
    texts_of = [(f"i{n:02}", ITEMS[n].tolist()) for n in range(29)]
    items = spark.createDataFrame(texts_of, "item_id string, vector array<float>")
    nearest = [int(n) for n in np.argsort(-(USERS[3] @ ITEMS.T))]
    people = [("u03", USERS[3].tolist(), ["gone", f"i{nearest[0]:02}", f"i{nearest[1]:02}"])]
    users = spark.createDataFrame(people, "user_id string, vector array<float>, recent_items array<string>")
    told = {"encoder": "bert", "attention": "2"}

    def at(encoder: str) -> Any:
        return scored(candidates, str(tmp_path / "model.safetensors"), sha256, FEATURES, told, {},
                      lambda: Texts(encoder, items, users))

    frame = at("bert")
    assert frame.columns == [*(column for column in CANDIDATES.names if column != "features"), "score"]
    found = {row["als_rank"] - 1: row["score"] for row in frame.select("als_rank", "score").collect()}
    head = model.loaded(two.networks["network_binary"]).double()
    mine = np.zeros((2, WIDTH))
    mine[0] = USERS[3]
    given = Given(
        torch.from_numpy(values).double(), torch.from_numpy(np.vstack([np.zeros(WIDTH), ITEMS[:29]])).double(),
        torch.tensor([(item + 1) % 30 for _, item in listed]), torch.tensor([int(user != "u03") for user, _ in listed]),
        torch.from_numpy(mine), torch.tensor([[0, nearest[0] + 1], [0, 0]]),
    )  # fmt: skip
    with torch.no_grad():
        expected = torch.sigmoid(2 * head.scores(given) - 1)
    assert found == pytest.approx(dict(enumerate(expected.tolist())), abs=1e-6)
    assert len(set(found.values())) > 10
    with pytest.raises(NightrecError, match="reads vectors of the encoder bert, the night has those of other; train"):
        at("other")
