"""The ranking network's forward pass in double precision, compiled. Letters: N rows, F features.

Rows go through the layers in blocks that stay in a core's cache, four inputs times four units over all rows of a block
at a time: on one core 7.1 million rows/s of the default network, where torch, which passes over memory once per
operation, has 3.2. A row's result does not depend on the rows beside it, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

Doubles = npt.NDArray[np.float64]

# Rows of a block: two layers of 64 x 128 doubles are 131 kB. 32 rows were half as fast.
_ROWS = 128


@dataclass(frozen=True)
class Compiled:
    """`widths` of each layer's input and of the last output; `weights` as the kernel reads them, see `compiled`.

    `mean` and `scale` (F,), one over the standard deviation, make the network's input of the features.
    """

    widths: npt.NDArray[np.int64]
    weights: Doubles
    mean: Doubles
    scale: Doubles

    def logits(self, features: npt.NDArray[np.float32]) -> Doubles:
        """(N, F) features, C-contiguous, to (N,) logarithms of the odds."""
        out = np.empty(len(features))
        _forward(features, self.mean, self.scale, self.widths, self.weights, out)
        return out

    def probabilities(self, features: npt.NDArray[np.float32]) -> Doubles:
        """The same as probabilities."""
        found: Doubles = 1 / (1 + np.exp(-self.logits(features)))
        return found


def compiled(tensors: dict[str, npt.NDArray[np.float32]]) -> Compiled:
    """The kernel's form of the tensors of `model.dumped`; the shift becomes part of the output's bias.

    Layer by layer, four units at a time: their biases, then their weights, 4 x 4 for each four inputs; widths that do
    not divide by four are filled up with zeros.
    """
    names = [f"layers.{n}" for n in range(sum(name.endswith(".bias") for name in tensors) - 1)] + ["output"]
    packed: list[Doubles] = []
    for name in names:
        weight, bias = (tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        bias = bias + (tensors["shift"] if name == "output" else 0)
        rows, columns = (-size % 4 for size in weight.shape)
        weight, bias = np.pad(weight, ((0, rows), (0, columns))), np.pad(bias, (0, rows))
        tiles = weight.reshape(len(weight) // 4, 4, -1, 4).swapaxes(1, 2).reshape(len(weight) // 4, -1)
        packed.append(np.column_stack([bias.reshape(-1, 4), tiles]).ravel())
    widths = [tensors[f"{name}.weight"].shape[1] for name in names]
    mean, std = (tensors[name].astype(np.float64) for name in ("mean", "std"))
    return Compiled(np.array([*widths, 1]), np.concatenate(packed), mean, 1 / std)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _forward(
    features: npt.NDArray[np.float32], mean: Doubles, scale: Doubles, widths: npt.NDArray[np.int64], weights: Doubles,
    out: Doubles,
) -> None:
    most = widths.max() + 3
    given, found = np.zeros((most, _ROWS)), np.zeros((most, _ROWS))
    for start in range(0, len(features), _ROWS):
        rows = min(_ROWS, len(features) - start)  # in the last block the others hold what they held before
        for row in range(rows):
            for f in range(widths[0]):
                given[f, row] = (features[start + row, f] - mean[f]) * scale[f]
        given[widths[0] : (widths[0] + 3) // 4 * 4] = 0.0
        at = 0
        for layer in range(len(widths) - 1):
            inputs, units = (widths[layer] + 3) // 4 * 4, (widths[layer + 1] + 3) // 4 * 4
            _layer(given, found, weights[at:], inputs, units)
            if layer < len(widths) - 2:
                found[:units] = np.maximum(found[:units], 0.0)
            at += units * (inputs + 1)
            given, found = found, given
        for row in range(rows):
            out[start + row] = given[0, row]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _layer(given: Doubles, found: Doubles, weights: Doubles, inputs: int, units: int) -> None:
    at = 0
    for unit in range(0, units, 4):
        o0, o1, o2, o3 = found[unit], found[unit + 1], found[unit + 2], found[unit + 3]
        for row in range(_ROWS):
            o0[row], o1[row], o2[row], o3[row] = weights[at], weights[at + 1], weights[at + 2], weights[at + 3]
        at += 4
        for n in range(0, inputs, 4):
            i0, i1, i2, i3 = given[n], given[n + 1], given[n + 2], given[n + 3]
            a0, a1, a2, a3 = weights[at], weights[at + 1], weights[at + 2], weights[at + 3]
            b0, b1, b2, b3 = weights[at + 4], weights[at + 5], weights[at + 6], weights[at + 7]
            c0, c1, c2, c3 = weights[at + 8], weights[at + 9], weights[at + 10], weights[at + 11]
            d0, d1, d2, d3 = weights[at + 12], weights[at + 13], weights[at + 14], weights[at + 15]
            for row in range(_ROWS):
                p, q, r, s = i0[row], i1[row], i2[row], i3[row]
                o0[row] += a0 * p + a1 * q + a2 * r + a3 * s
                o1[row] += b0 * p + b1 * q + b2 * r + b3 * s
                o2[row] += c0 * p + c1 * q + c2 * r + c3 * s
                o3[row] += d0 * p + d1 * q + d2 * r + d3 * s
            at += 16
