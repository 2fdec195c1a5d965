"""A quota for new items: a few for each list, drawn by chance with a probability that is logged.

What few have acted on is outranked by what many have, and never gets more. So each list draws some of the night's new
items one after the other, each with probability in proportion to its weight among those not drawn yet: likelier what
moves this week and what is near to the list's texts. A list draws by adding Gumbel noise to the logarithms of the
weights and taking the largest sums (Kool et al. 2019, "Stochastic Beams and Where to Find Them"); the noise follows
from night, list and item alone. The score is the probability with which the item was drawn at its place, given those
drawn before it: what an estimate from outcomes weighs by.

Letters: R lists, P new items of the night, E embedding width, A columns, K drawn for each list.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from nightrec.serving.inner_product_kernel import dot
from nightrec.serving.sources_kernel import hide
from nightrec.tables import WINDOWS

if TYPE_CHECKING:
    from nightrec.serving.catalogue import Catalogue
    from nightrec.serving.nominate import Lists, Ragged

# New items of one night among which lists draw: what a list takes grows with them, 20 microseconds at 384 dimensions.
POOL = 200
# A cosine nearer by so much is e times as likely. With the first draw on the last of ten places, recall@10 of items of
# five events at most, by what decides: nothing .003, texts .004, what moves .021, both .022 (a shop, 397 times a user
# who took one up); MovieLens (102) .010, .016, .019, .035.
TEMPERATURE = 0.05


def pool(rows: pa.Table, events: int, run_date: date) -> npt.NDArray[np.bool_]:
    """Which items of `candidates.item_rows` lists draw among: available, of at most `events` events, POOL at most.

    Those on which most users acted lately come first (in three days, then in the next of WINDOWS: one day has too few
    users of an item that few know); ties take turns by night.
    """
    is_new = rows["is_available"].to_numpy() & (rows["event_count"].to_numpy() <= events)
    windows = rows["window_user_counts"].combine_chunks().flatten().to_numpy().reshape(-1, len(WINDOWS))
    windows = windows[:, WINDOWS.index(3) :]
    turn = np.random.default_rng(run_date.toordinal()).permutation(len(is_new))
    order = np.lexsort((turn, *(-windows.T[::-1]), ~is_new))[:POOL]
    chosen = np.zeros(len(is_new), np.bool_)
    chosen[order] = is_new[order]
    return chosen


def appeal(windows: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """P: the logarithm of an item's weight without texts, from its users in each of WINDOWS (P x WINDOWS)."""
    week, month = (windows[:, WINDOWS.index(days)] for days in (7, 28))
    found: npt.NDArray[np.float64] = 4 * np.log1p(week) + 2 * np.log1p(month)
    return found


def draw(lists: Lists, items: Catalogue, masked: Ragged, best: Any) -> None:
    """Fill `best` (R x K, see `sources.Best`) for all but similar items."""
    if not len(items.new):
        return
    number = items.columns[items.new]
    _draw(
        lists.seed, ~lists.is_item, lists.text, lists.has_text, items.vectors.rows, items.vectors.has, number,
        items.new, appeal(items.windows[items.new]), 1 / TEMPERATURE, masked.offsets, masked.values, items.width,
        best.columns, best.scores,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _draw(
    seeds: Any, wanted: Any, text: Any, has_text: Any, vectors: Any, has_vector: Any, numbers: Any, pool: Any,
    appeal: Any, sharpness: Any, masked_offsets: Any, masked: Any, width: Any, columns: Any, scores: Any,
) -> None:  # fmt: skip
    """Columns of `pool` (P, items `numbers`) drawn for each list, and the probabilities."""
    hidden_from = np.full(width, -1)
    weights, keys, products = np.empty(len(pool)), np.empty(len(pool)), np.empty(text.shape[1])
    for r in range(len(columns)):
        if not wanted[r]:
            continue
        hide(masked_offsets, masked, r, hidden_from)
        for p in range(len(pool)):
            weights[p], keys[p] = 0.0, -np.inf
            if hidden_from[pool[p]] == r:
                continue
            log_weight = appeal[p]
            if has_text[r] and has_vector[numbers[p]]:
                log_weight += sharpness * dot(text[r], vectors[numbers[p]], products)
            weights[p] = np.exp(log_weight)
            keys[p] = log_weight + _gumbel(seeds[r], numbers[p])
        for k in range(min(columns.shape[1], len(pool))):
            best = np.argmax(keys)
            if keys[best] == -np.inf:
                break
            columns[r, k], scores[r, k] = pool[best], weights[best] / weights.sum()
            weights[best], keys[best] = 0.0, -np.inf


@njit(cache=True, nogil=True)
def _gumbel(seed: Any, number: Any) -> float:
    """-log(-log(u)) of a u in (0, 1) that is splitmix64 (Steele et al. 2014) of seed and number."""
    mixed = np.uint64(seed) + np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return float(-np.log(-np.log((np.float64(mixed >> np.uint64(11)) + 0.5) * 2.0**-53)))
