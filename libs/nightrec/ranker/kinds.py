"""One calibrated probability per kind of event, and what an item is worth by them.

P(kind) = P(any action) P(kind | an action): the first is the blend's, the second a logistic regression on the features
of what was acted on, so that kinds may order items differently; each product goes through a Platt sigmoid of its own.
Letters: N examples, F features, K kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nightrec.metrics.probability import calibrated
from nightrec.ranker.blend import Doubles, platt, sigmoid
from nightrec.ranker.dataset import Floats, Split
from nightrec.tables import EVENT_TYPES

ANY = "any"
# Of a regression's weights, in squared standard deviations of a feature: a kind of some dozen events moves little.
_PENALTY = 10.0
# Actions that a regression learns from at most, evenly taken: 60 weights need no more.
_MOST = 100_000
# Rows in double precision at once.
_ROWS = 65_536


@dataclass(frozen=True)
class Kind:
    """`weights` (F + 1,), the last without a feature, of the logarithm of the odds of the kind among actions; `slope`
    and `offset` of the sigmoid over the logarithm of the product's odds."""

    weights: Doubles
    slope: float = 1.0
    offset: float = 0.0

    def log_odds(self, features: Floats, any_action: Doubles) -> Doubles:
        """(N,): of the product, before the sigmoid."""
        blocks = np.split(features, range(_ROWS, len(features), _ROWS))
        among = np.concatenate([block.astype(np.float64) @ self.weights[:-1] for block in blocks]) + self.weights[-1]
        return _log_odds(any_action * sigmoid(among))

    def probabilities(self, features: Floats, any_action: Doubles) -> Doubles:
        """(N,) of `features` (N, F) and the probability of any action (N,)."""
        return sigmoid(self.slope * self.log_odds(features, any_action) + self.offset)


def _log_odds(probabilities: Doubles) -> Doubles:
    inside = np.clip(probabilities, 1e-12, 1 - 1e-12)
    found: Doubles = np.log(inside) - np.log1p(-inside)
    return found


def worth(kinds: Mapping[str, Kind], values: Mapping[str, float], features: Floats, any_action: Doubles) -> Doubles:
    """(N,): the sum over `values` of value times probability, in the unit of the values."""
    total: Doubles = np.zeros(len(features))
    for kind, value in values.items():
        total = total + value * kinds[kind].probabilities(features, any_action)
    return total


def learned(
    train: Split, valid: Split, any_action: Doubles, before: Doubles
) -> tuple[dict[str, Kind], list[dict[str, Any]]]:
    """The kinds of event that both splits hold, and a line on the calibration of each, that of any action first.

    `any_action` (N,) are the blend's probabilities on the valid split, `before` (N,) what they were without
    calibration. error_before of a kind: its product as learned on the train split. error_after: with the sigmoid that
    the other half of the lists gives, so that no example is judged by a sigmoid it helped to fit.
    """
    lines = [_line(ANY, valid.labels, before, _log_odds(any_action), valid.lists)]
    acted = np.flatnonzero(train.labels > 0)
    acted = acted[:: -(-len(acted) // _MOST)]
    features = train.features[acted].astype(np.float64)
    kinds: dict[str, Kind] = {}
    for bit, name in enumerate(EVENT_TYPES):
        is_kind = (train.kinds[acted] >> bit & 1).astype(np.float64)
        labels = (valid.kinds >> bit & 1).astype(np.float32)
        if not is_kind.any() or not labels.any():
            continue
        kind = Kind(logistic(features, is_kind))
        odds = kind.log_odds(valid.features, any_action)
        kinds[name] = Kind(kind.weights, *platt(odds, labels))
        lines.append(_line(name, labels, sigmoid(odds), odds, valid.lists))
    return kinds, lines


def _line(kind: str, labels: Floats, before: Doubles, odds: Doubles, lists: npt.NDArray[np.int32]) -> dict[str, Any]:
    after = np.empty(len(odds))
    odd = lists % 2 == 1
    for half in (odd, ~odd):
        # Where there is nothing to learn from in the other half, from all.
        other = ~half if labels[~half].any() else np.ones_like(half)
        slope, offset = platt(odds[other], labels[other])
        after[half] = sigmoid(slope * odds[half] + offset)
    errors = {f"error_{when}": calibrated(p, labels).error for when, p in (("before", before), ("after", after))}
    return {"kind": kind, "positives": int(labels.sum()), **errors}


def logistic(features: Doubles, labels: Doubles, steps: int = 50) -> Doubles:
    """(F + 1,) weights and constant of the regression of 0 and 1 on (N, F), penalised in units of each feature's
    spread, by Newton's method. Where all labels are alike the constant alone tells, as if half a label were each way.
    """
    ones = labels.sum()
    constant = np.log((ones + 0.5) / (len(labels) - ones + 0.5))
    if ones in (0, len(labels)):
        return np.append(np.zeros(features.shape[1]), constant)
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    given = np.column_stack([(features - mean) / spread, np.ones(len(labels))])
    penalty = np.append(np.full(features.shape[1], _PENALTY), 1e-6)
    weights = np.append(np.zeros(features.shape[1]), constant)
    for _ in range(steps):
        p = sigmoid(given @ weights)
        gradient = given.T @ (p - labels) + penalty * weights
        step = np.linalg.solve((given * (p * (1 - p))[:, None]).T @ given + np.diag(penalty), gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    slopes = weights[:-1] / spread
    return np.append(slopes, weights[-1] - slopes @ mean)
