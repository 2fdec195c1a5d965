"""The linear model against its definition: the least squares problem that it solves in closed form."""

from __future__ import annotations

import numpy as np
from pyspark.sql import SparkSession

from nightrec.serving import linear

BASKETS = [[0, 1, 2], [0, 1], [1, 2, 4], [0, 4], [2, 3], [1], [0, 1, 4], [3]]
USERS = np.array([4, 5, 3, 2, 3, 0])


def best(chosen: list[int], penalty: float) -> np.ndarray:
    """Column by column the ridge regression of an item on all others: what EASE is."""
    x = np.array([[float(item in basket) for item in chosen] for basket in BASKETS])
    weights = np.zeros((len(chosen), len(chosen)))
    for column in range(len(chosen)):
        others = [n for n in range(len(chosen)) if n != column]
        gram = x[:, others].T @ x[:, others] + penalty * np.eye(len(others))
        weights[others, column] = np.linalg.solve(gram, x[:, others].T @ x[:, column])
    return weights


def found(spark: SparkSession, **settings: int | float) -> dict[tuple[int, int], float]:
    frame = spark.createDataFrame([(basket,) for basket in BASKETS], "basket array<int>").repartition(3)
    table = linear.neighbours(frame, USERS, **settings)  # type: ignore[arg-type]
    rows = table.to_pylist()
    assert len({(row["item_idx"], row["neighbour_idx"]) for row in rows}) == len(rows)
    return {(row["item_idx"], row["neighbour_idx"]): row["similarity"] for row in rows}


def test_weights_are_the_regressions(spark: SparkSession) -> None:
    weights = best([0, 1, 2, 3, 4], 2.0)
    expected = {(i, j): weights[i, j] for i in range(5) for j in range(5) if i != j}
    got = found(spark, most_items=10, penalty=2.0, neighbours=9)
    assert got.keys() == expected.keys()
    assert all(abs(got[cell] - expected[cell]) < 1e-9 for cell in got)
    assert min(got.values()) < 0  # what one rather not takes with another counts as well


def test_only_the_items_with_most_users_and_the_largest_weights(spark: SparkSession) -> None:
    weights = best([0, 1, 2], 2.0)  # of 2 and 4, which have three users each, the smaller number
    got = found(spark, most_items=3, penalty=2.0, neighbours=1)
    largest = {i: max((j for j in range(3) if j != i), key=lambda j: abs(weights[i, j])) for i in range(3)}
    assert dict(got.keys()) == largest
    assert all(abs(got[i, j] - weights[i, j]) < 1e-9 for i, j in got)


def test_nobody_has_anything(spark: SparkSession) -> None:
    empty = spark.createDataFrame([], "basket array<int>")
    assert linear.neighbours(empty, np.zeros(4, int), most_items=3, penalty=1.0, neighbours=2).num_rows == 0
