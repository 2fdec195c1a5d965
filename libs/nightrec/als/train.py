"""Alternating least squares in Horovod processes, read downwards: data, factors, half-step, exchange, loss.

Every process runs `train` on the rows of its own blocks, which stay with it as compressed rows over all iterations;
what travels is each side's new factors, once per half-step, between the processes and never through the driver. Sums
over blocks are taken in the order of the blocks, so the result depends on their number and not on how many processes
share them, nor on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from nightrec.als.blocks import Side
from nightrec.als.kernel import Floats, Objective, Rows

# Steps of conjugate gradient per half-step, each from the last iteration's factors (Takács, Pilászy & Tikk 2011,
# "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering").
CG_STEPS = 3

ENTRIES = pa.schema(
    {"block": pa.int32(), "is_item": pa.bool_(), "row": pa.int32(), "column": pa.int32(), "weight": pa.float32()}
)


@dataclass(frozen=True)
class Plan:
    """What every process must know: the objective, the numbers of items and blocks, the factors' width, how long."""

    objective: Objective
    items: int
    blocks: int
    rank: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class Held:
    """One process's part: its blocks of users and of items as compressed rows, and who has which block."""

    users: Side
    items: Side
    user_rows: dict[int, Rows]
    item_rows: dict[int, Rows]
    blocks: list[int]  # of all processes, rank by rank

    @property
    def mine(self) -> list[int]:
        """This process's blocks."""
        return list(self.user_rows)


@dataclass(frozen=True)
class Trained:
    """Item factors by item number (I x D), and the loss after each iteration."""

    item_factors: Floats
    losses: list[float]


def train(plan: Plan, batches: Iterator[pa.RecordBatch]) -> Trained | None:
    """Train in all processes of the running Horovod job; rank 0 returns the result, the others None.

    `batches` hold the ENTRIES of this process's blocks, each block in one process: `block`, `is_item` (whether the row
    is an item's or a user's), `row` its number, `column` the number of the other side, `weight`.
    """
    torch.set_num_threads(1)
    held = _held(pa.Table.from_batches((batch.cast(ENTRIES) for batch in batches), ENTRIES), plan)
    users = np.zeros((held.users.count, plan.rank), np.float32)
    items = np.random.default_rng(plan.seed).standard_normal((plan.items, plan.rank), np.float32)
    items *= np.float32(plan.rank**-0.5)

    losses = []
    for _ in range(plan.iterations):
        _half_step(plan.objective, held.user_rows, users, held.users, items, held.items, held)
        _half_step(plan.objective, held.item_rows, items, held.items, users, held.users, held)
        losses.append(_loss(plan.objective, users, items, held))
    if hvd.rank():
        return None
    return Trained(items[held.items.places(np.arange(plan.items))], losses)


def _held(table: pa.Table, plan: Plan) -> Held:
    """The entries as compressed rows, their columns as places in the other side's matrix."""
    mine = sorted(table["block"].unique().to_pylist())
    of_users = table.filter(pc.invert(table["is_item"]))
    last = pc.max(of_users["row"]).as_py()
    told: list[tuple[list[int], int]] = hvd.allgather_object((mine, -1 if last is None else int(last)))
    users = Side(max(last for _, last in told) + 1, plan.blocks)
    items = Side(plan.items, plan.blocks)
    return Held(
        users,
        items,
        _rows(of_users, users, items, mine),
        _rows(table.filter(table["is_item"]), items, users, mine),
        [block for blocks, _ in told for block in blocks],
    )


def _rows(entries: pa.Table, side: Side, other: Side, mine: list[int]) -> dict[int, Rows]:
    rows, weights = entries["row"].to_numpy(), entries["weight"].to_numpy()
    columns, block_of = other.places(entries["column"].to_numpy()), rows % side.blocks
    found = {}
    for block in mine:
        here = block_of == block
        found[block] = Rows.of(rows[here] // side.blocks, columns[here], weights[here], side.size(block))
    return found


def _half_step(
    objective: Objective, rows: dict[int, Rows], factors: Floats, side: Side, fixed: Floats, other: Side, held: Held
) -> None:
    """Solve this process's rows of a side, and give every process what the others have solved."""
    width = fixed.shape[1]
    grams = _gathered(np.empty((0, width, width)), [_square(fixed[other.slice(block)])[None] for block in held.mine])
    gram = grams[np.argsort(held.blocks)].sum(axis=0)
    for block, entries in rows.items():
        objective.solve(entries, factors[side.slice(block)], fixed, gram, CG_STEPS)
    solved, start = _gathered(factors[:0], [factors[side.slice(block)] for block in held.mine]), 0
    for block in held.blocks:
        factors[side.slice(block)] = solved[start : start + side.size(block)]
        start += side.size(block)


def _gathered(nothing: npt.NDArray[Any], own: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The arrays of all processes, one under the other, rank by rank; `nothing` is what one without blocks has."""
    gathered: npt.NDArray[Any] = hvd.allgather(torch.from_numpy(np.concatenate([nothing, *own]))).numpy()
    return gathered


def _square(factors: Floats) -> npt.NDArray[np.float64]:
    wide = factors.astype(np.float64)
    product: npt.NDArray[np.float64] = wide.T @ wide
    return product


def _loss(objective: Objective, users: Floats, items: Floats, held: Held) -> float:
    """The objective: each process's share of its blocks, added up in the order of the blocks."""
    item_gram, parts = _square(items), {}
    for block in held.mine:
        own, columns = users[held.users.slice(block)], items[held.items.slice(block)]
        penalties = objective.penalties(held.item_rows[block].lengths, held.users.count).astype(np.float64)
        parts[block] = objective.loss(held.user_rows[block], own, items, _square(own), item_gram) + float(
            penalties @ np.einsum("rd,rd->r", columns, columns, dtype=np.float64)
        )
    every = {block: part for one in hvd.allgather_object(parts) for block, part in one.items()}
    return float(sum(every[block] for block in sorted(every)))
