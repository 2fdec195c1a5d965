"""Users solved against frozen item factors, by the normal equations written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from nightrec.als.fold_in import user_factors
from nightrec.config import Als
from nightrec.tables import ALS_ITEM_FACTORS, CLEAN_EVENTS

SETTINGS = Als(rank=6, alpha=7.0, regularisation=0.1)


def written_out(factors: Any, items: Any, weights: Any) -> Any:
    """x = (YtY + sum a w y y' + l n 1)^-1 sum (1 + a w) y, entry by entry."""
    left, right = factors.T @ factors + SETTINGS.regularisation * len(items) * np.eye(6), np.zeros(6)
    for item, weight in zip(items, weights, strict=True):
        left += SETTINGS.alpha * weight * np.outer(factors[item], factors[item])
        right += (1 + SETTINGS.alpha * weight) * factors[item]
    return np.linalg.solve(left, right)


def test_items_the_model_does_not_know(rows: Any) -> None:
    factors = np.eye(6)[:2]
    items = rows(
        ALS_ITEM_FACTORS, [{"item_id": name, "factors": row.tolist()} for name, row in zip("xy", factors, strict=True)]
    )
    events = rows(
        CLEAN_EVENTS,
        [
            {"user_id": "both", "item_id": "x", "weight": 1.0},
            {"user_id": "both", "item_id": "new", "weight": 9.0},  # came after the training: left out, not counted in n
            {"user_id": "only-new", "item_id": "new", "weight": 1.0},  # no known item: no row
            {"user_id": "only-seen", "item_id": "x", "weight": 0.0},  # no weight: no row
        ],
    )
    found = user_factors(events, items, SETTINGS).toArrow().to_pylist()
    assert [row["user_id"] for row in found] == ["both"]
    np.testing.assert_allclose(found[0]["factors"], written_out(factors, [0], [np.log(2.0)]), atol=1e-6)
    assert user_factors(events.where("false"), items, SETTINGS).toArrow().num_rows == 0
    assert user_factors(events, items.where("false"), SETTINGS).toArrow().num_rows == 0
