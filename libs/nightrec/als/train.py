"""Alternating least squares in Horovod processes, read downwards: data, factors, half-steps, loss, checkpoint.

Every process runs `train` on the rows of its own blocks, which stay with it as compressed rows over all iterations;
what travels is each side's new factors, once per half-step, between the processes. The result depends on the number of
blocks and not on how many processes share them, nor on the order of the rows, nor on whether the fixed side is held
whole or comes block by block.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import horovod.torch as hvd
import numpy as np
import pyarrow as pa
import torch

from nightrec.als import kernel
from nightrec.als.blocks import Entries, Side
from nightrec.als.checkpoint import Checkpoint
from nightrec.als.exchange import SQUARED, Part, Squares, over_blocks
from nightrec.als.objective import Doubles, Floats, Objective
from nightrec.failpoint import reach
from nightrec.lifeline import progress

# Steps of conjugate gradient per half-step, each from the last iteration's factors (Takács, Pilászy & Tikk 2011,
# "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering").
CG_STEPS = 3


@dataclass(frozen=True)
class Plan:
    """What every process must know: the objective, the numbers of items and blocks, the factors' width, how long.

    `gathered_bytes` bounds the factors of a fixed side that a process holds whole. `checkpoint`, where given, is a
    folder that every process reaches.
    """

    objective: Objective
    items: int
    blocks: int
    rank: int
    iterations: int
    seed: int
    gathered_bytes: int
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Trained:
    """Item factors by item number (I x D), the loss after each iteration; how many iterations a checkpoint spared,
    and the seconds of the others."""

    item_factors: Floats
    losses: list[float]
    resumed: int
    seconds: list[float]


def train(plan: Plan, batches: Iterator[pa.RecordBatch]) -> Trained | None:
    """Train in all processes of the running Horovod job; rank 0 returns the result, the others None.

    `batches` hold the blocks.ENTRIES of this process's blocks, which follow one another, each block in one process:
    `block`, `is_item` (whether the row is an item's or a user's), `row` its number, `column` the number of the other
    side, `weight`.
    """
    torch.set_num_threads(1)
    users, items = _parts(plan, batches)
    checkpoint = Checkpoint(plan.checkpoint, plan.objective, users, items)
    losses = checkpoint.resume(plan.iterations)
    resumed, seconds = len(losses), []

    items.settle()
    of_items = Squares.of(items)
    for _ in range(resumed, plan.iterations):
        start = time.perf_counter()
        half_step(plan.objective, users, items, of_items.total)
        progress()
        users.settle()
        of_users = Squares.of(users)
        half_step(plan.objective, items, users, of_users.total)
        items.settle()
        of_items = Squares.of(items)
        losses.append(_loss(plan.objective, users, items, of_users, of_items))
        seconds.append(time.perf_counter() - start)
        checkpoint.save(losses)
        progress()
        reach("als_item_factors.iteration")

    factors = items.whole if items.whole is not None else _collected(items, plan)
    return None if hvd.rank() else Trained(factors[items.side.places()], losses, resumed, seconds)


def memory(
    pairs: int, users: int, items: int, rank: int, blocks: int, processes: int, gathered_bytes: int
) -> float:
    """Bytes that training takes at most in one process, beyond Python and its libraries; blocks being of like size.

    An entry is 13 bytes as it came, whose pages may stay with the process, and 8 as a compressed row; every pair is
    two entries. `users` are the user numbers. A side that is held whole counts in every process that shares it.
    """
    entries = (26 + 16) * pairs / processes
    places, squares = 8 * (users + items), 8 * rank**2 * (4 * blocks + 2) + 16 * SQUARED * rank
    factors = 0.0
    for count in (users, items):
        side = 4.0 * rank * count
        # Beyond the bound: own rows, three more numbers per factor for the steps, and one block on its way.
        factors += side if side <= gathered_bytes else 4 * side / processes + side / blocks
    return entries + places + factors + squares


def _parts(plan: Plan, batches: Iterator[pa.RecordBatch]) -> tuple[Part, Part]:
    """This process's users and items, with the factors they start from: users none, items by chance from the seed."""
    entries = Entries.of(batches)
    told: list[tuple[range, int]] = hvd.allgather_object((entries.blocks, entries.users))
    held = [blocks for blocks, _ in told]
    users, items = Side(max(users for _, users in told), plan.blocks), Side(plan.items, plan.blocks)
    users_rows = entries.rows(users, items, of_items=False)
    items_rows = entries.rows(items, users, of_items=True)
    of_users = Part.of(users, entries.blocks, users_rows, plan.rank, held, plan.gathered_bytes)
    of_items = Part.of(items, entries.blocks, items_rows, plan.rank, held, plan.gathered_bytes)
    for block in entries.blocks:
        of_items.factors[of_items.own(block)] = _drawn(plan, block, items.size(block))
    return of_users, of_items


def _drawn(plan: Plan, block: int, rows: int) -> Floats:
    factors = np.random.default_rng([plan.seed, block]).standard_normal((rows, plan.rank), np.float32)
    return factors * np.float32(plan.rank**-0.5)


def half_step(objective: Objective, part: Part, fixed: Part, gram: Doubles) -> None:
    """Improve a process's own rows of a side in place, against the other side; `gram` is that side's Y'Y."""
    if fixed.whole is not None:
        objective.solve(part.rows, part.factors, fixed.whole, gram, CG_STEPS)
    else:
        _routed_half_step(objective, part, fixed, gram)


def _routed_half_step(objective: Objective, part: Part, fixed: Part, gram: Doubles) -> None:
    """The same steps with all rows abreast: every block of the fixed side comes by once for each of them."""
    rows, x = part.rows, part.factors
    gram = (objective.everywhere * gram).astype(np.float32)
    penalties = objective.penalties(rows.lengths, fixed.side.count).astype(np.float32)
    terms = objective.terms(x.dtype)

    def minus_image(out: Floats, of: Floats, share: np.float32) -> None:
        kernel.everywhere(out, of, gram, penalties)
        heads = rows.starts[:-1].copy()
        for low, piece in fixed.pieces():
            kernel.along(out, of, share, heads, rows.starts[1:], rows.columns, rows.weights, low, piece, terms)

    left, direction, image = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    sizes, enough = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    minus_image(left, x, np.float32(1))
    kernel.begin(left, direction, sizes, enough)
    for _ in range(CG_STEPS):
        minus_image(image, direction, np.float32(0))
        kernel.advance(x, left, direction, image, sizes, enough)
    x[rows.lengths == 0] = 0


def _loss(objective: Objective, users: Part, items: Part, of_users: Squares, of_items: Squares) -> float:
    """The objective over users and items: each process's share of its blocks, added up in the order of the blocks."""
    rows, terms = users.rows, objective.terms(users.factors.dtype)
    parts = {}
    for block in users.blocks:
        everywhere = objective.everywhere * float((of_users.own[block] * of_items.total).sum())
        penalties = sum(_penalty(objective, part, block, columns) for part, columns in (
            (users, items.side.count), (items, users.side.count)
        ))
        parts[block] = everywhere + penalties
    heads = rows.starts[:-1].copy()
    for low, piece in items.pieces():
        for block in users.blocks:
            own = users.own(block)
            parts[block] += float(kernel.entries_loss(
                heads[own], rows.starts[1:][own], rows.columns, rows.weights, users.factors[own], low, piece, terms,
                objective.is_explicit,
            ))  # fmt: skip
    return float(over_blocks(parts))


def _penalty(objective: Objective, part: Part, block: int, columns: int) -> float:
    own = part.own(block)
    factors = part.factors[own]
    squares = np.einsum("rd,rd->r", factors, factors, dtype=np.float64)
    return float(objective.penalties(part.rows.lengths[own], columns) @ squares)


def _collected(items: Part, plan: Plan) -> Floats:
    """All blocks of a side that is not held whole; only rank 0 keeps them, for the result."""
    factors = np.zeros((items.side.count if not hvd.rank() else 0, plan.rank), np.float32)
    for low, piece in items.pieces():
        if not hvd.rank():
            factors[low : low + len(piece)] = piece
    return factors
