"""The networks that score a candidate, one of them by `ranker.head`.

Letters: B batch, F features, T texts, D width of a text vector, L lists, R recent items of a list, A width of the
attention, H width of a hidden layer. u is the user's text vector, i the item's; zero where there is none. Text vectors
mean the same in every night, factors only in their own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nightrec.config import Ranker

Rows = npt.NDArray[np.integer]

# Width of the attention: a score needs few directions of the texts' many.
ATTENTION = 16


@dataclass(frozen=True)
class Given:
    """What is known of B candidates: `features` (B, F); the text vectors that are met, `texts` (T, D), of which the
    first is zero and stands for none; the row there of each one's item, `items` (B,), and its number in `lists` (B,),
    of which come `users` (L, D), vectors, and `recent` (L, R), rows of the user's latest items.

    A head that reads no vectors needs the features alone.
    """

    features: Tensor
    texts: Tensor | None = None
    items: Tensor | None = None
    lists: Tensor | None = None
    users: Tensor | None = None
    recent: Tensor | None = None

    @classmethod
    def of(
        cls, features: Tensor, vectors: npt.NDArray[np.float32], items: Rows, lists: Rows, users: Tensor, recent: Rows
    ) -> Given:
        """What is known of B candidates, whose items (B,) and recent items (L, R) are rows of `vectors` (M, D), the
        first of them zero. An attention then reads each text of a batch once: 1,024 examples name 6,000."""
        met, at = np.unique(np.concatenate([[0], items, recent.reshape(-1)]), return_inverse=True)
        texts = torch.from_numpy(vectors[met]).to(features.dtype)
        rows = at[1 : len(items) + 1], lists, at[len(items) + 1 :].reshape(recent.shape)
        of_items, of_lists, of_recent = map(torch.from_numpy, rows)
        return cls(features, texts, of_items, of_lists, users, of_recent)

    def to(self, device: torch.device) -> Given:
        """The same on a device."""
        parts = (self.texts, self.items, self.lists, self.users, self.recent)
        return Given(self.features.to(device), *(part if part is None else part.to(device) for part in parts))

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """u and i of each candidate, (B, D)."""
        assert self.texts is not None and self.items is not None and self.users is not None and self.lists is not None
        return self.users[self.lists], self.texts[self.items]


class Head(nn.Module):
    """A score per candidate. Logits: their sigmoid is the probability of an action, where the loss makes it one.

    `shift`, the logarithm of the share of negatives that training kept, is added to them but while training, which sees
    too few negatives: so they are the odds among all candidates (King & Zeng 2001, "Logistic Regression in Rare Events
    Data", prior correction).
    """

    shift: Tensor
    name = ""
    feature_count = 0  # F that it reads, 0 where it reads none
    vector_width = 0  # D, likewise

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def scores(self, given: Given, *masks: Tensor) -> Tensor:
        """(B,). While training, `masks` are one (B, H) dropout mask per hidden layer, or none."""
        raise NotImplementedError

    @property
    def constant(self) -> nn.Parameter:
        """What is added to every score, (1,) or ()."""
        raise NotImplementedError

    def penalty(self, _settings: Ranker) -> Tensor | None:
        """What is added to the loss for the weights themselves; None for nothing."""
        return None

    @property
    def reads_vectors(self) -> bool:
        """Whether features are not enough."""
        return self.vector_width > 0

    def shifted(self, scores: Tensor) -> Tensor:
        """As they leave the network."""
        return scores if self.training else scores + self.shift


class Network(Head):
    """A multilayer perceptron over the features. It carries what turns raw features into its input, so weights and
    constants cannot be parted: `mean` and `std` (F,) of the training examples."""

    mean: Tensor
    std: Tensor
    name = "deep"

    def __init__(self, mean: Tensor, std: Tensor, shift: Tensor, hidden: Sequence[int]) -> None:
        super().__init__(shift)
        self.register_buffer("mean", mean)
        # A feature that never varies in training has no scale; dividing by 1 leaves it at 0.
        self.register_buffer("std", torch.where(std > 1e-6, std, torch.ones_like(std)))
        self.feature_count = len(mean)
        widths = [len(mean), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, inputs: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """(B, F) to (B,) logits."""
        x = (inputs - self.mean) / self.std
        for n, layer in enumerate(self.layers):
            x = torch.relu(layer(x))
            if masks:
                x = x * masks[n]
        return self.shifted(self.output(x).squeeze(-1))

    def inputs(self, given: Given) -> Tensor:
        """What the perceptron reads."""
        return given.features

    def scores(self, given: Given, *masks: Tensor) -> Tensor:
        """(B,)."""
        logits: Tensor = self(self.inputs(given), masks)
        return logits

    @property
    def constant(self) -> nn.Parameter:
        """The bias of the output."""
        return self.output.bias


class Attentive(Network):
    """The perceptron with A more inputs: the candidate beside those of the user's recent items that are like it.

    q = V i and k_r = V r with a learned V (A, D); the recent items are mixed by softmax_r(q.k_r / sqrt(A)), and the
    inputs are q times the mixed k, element by element (attention as of Vaswani et al. 2017, with the candidate asking
    as in Zhou et al. 2018, "Deep Interest Network"). Zero where the item or every recent one has no vector.
    """

    name = "attentive"

    def __init__(self, mean: Tensor, std: Tensor, shift: Tensor, hidden: Sequence[int], width: int) -> None:
        super().__init__(
            torch.cat([mean, torch.zeros(ATTENTION)]), torch.cat([std, torch.ones(ATTENTION)]), shift, hidden
        )
        self.feature_count, self.vector_width = len(mean), width
        # Of unit vectors come inputs of size 1.
        self.attention = nn.Parameter(torch.randn(ATTENTION, width))

    def by_keys(self, place: int = 0, of: int = 1) -> Attentive:
        """The head that gives the same scores where vectors hold V times what they hold here, as the `place`-th of so
        many attentions' keys: A numbers of each item instead of D."""
        head = copy.deepcopy(self)
        head.vector_width = of * ATTENTION
        own = torch.eye(ATTENTION, head.vector_width).roll(place * ATTENTION, 1)
        head.attention = nn.Parameter(own.to(self.attention))
        return head

    def inputs(self, given: Given) -> Tensor:
        """(B, F + A)."""
        assert given.texts is not None and given.items is not None
        assert given.lists is not None and given.recent is not None
        keys = given.texts @ self.attention.T  # (T, A)
        asked = nn.functional.embedding(given.items, keys)  # (B, A)
        rows = given.recent[given.lists]
        recent = nn.functional.embedding(rows, keys)  # (B, R, A)
        # Not by bmm, which took a quarter longer for matrices as small as these.
        likeness = (recent * asked.unsqueeze(1)).sum(2) / ATTENTION**0.5
        # Not -inf: a user without any would get NaN.
        share = torch.softmax(likeness.masked_fill(rows == 0, -1e9), 1)
        mixed = (share.unsqueeze(2) * recent).sum(1)
        return torch.cat([given.features, asked * mixed], 1)


class Product(Network):
    """The perceptron over u times i, element by element, times D: of unit vectors come inputs of size 1."""

    name = "product"

    def __init__(self, width: int, shift: Tensor, hidden: Sequence[int]) -> None:
        super().__init__(torch.zeros(width), torch.full((width,), 1 / width), shift, hidden)
        self.feature_count, self.vector_width = 0, width

    def inputs(self, given: Given) -> Tensor:
        """(B, D)."""
        user, item = given.pairs
        return user * item


class Bilinear(Head):
    """(W u).i + b, starting at W = 1: the cosine."""

    name = "bilinear"

    def __init__(self, width: int, shift: Tensor) -> None:
        super().__init__(shift)
        self.vector_width = width
        self.matrix = nn.Parameter(torch.eye(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def scores(self, given: Given, *_masks: Tensor) -> Tensor:
        """(B,); there is no hidden layer."""
        assert given.users is not None and given.lists is not None
        assert given.texts is not None and given.items is not None
        users = (given.users @ self.matrix.T)[given.lists]  # each list's once
        return self.shifted((users * given.texts[given.items]).sum(1) + self.bias)

    @property
    def constant(self) -> nn.Parameter:
        """b."""
        return self.bias


class Cosine(Head):
    """a cos(w^1/2 u, w^1/2 i) + b with learned w (D,) above 0: sum w u i / sqrt(sum w u^2 sum w i^2), 0 for zeros.

    Learned is log w, which the penalty draws to 0: to the plain cosine.
    """

    name = "cosine"

    def __init__(self, width: int, shift: Tensor) -> None:
        super().__init__(shift)
        self.vector_width = width
        self.log_weights = nn.Parameter(torch.zeros(width))
        self.factor = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def scores(self, given: Given, *_masks: Tensor) -> Tensor:
        """(B,); there is no hidden layer."""
        root = (self.log_weights / 2).exp()
        user, item = (nn.functional.normalize(vectors * root, dim=1) for vectors in given.pairs)
        return self.shifted(self.factor * (user * item).sum(1) + self.bias)

    @property
    def constant(self) -> nn.Parameter:
        """b."""
        return self.bias

    def penalty(self, settings: Ranker) -> Tensor:
        """`ranker.cosine_penalty` times the sum of (log w)^2."""
        return settings.cosine_penalty * (self.log_weights**2).sum()


def made(settings: Ranker, mean: Tensor, std: Tensor, shift: Tensor, width: int) -> Head:
    """The head that `ranker.head` and `ranker.attention` ask for, untrained; `width` is D where it reads vectors."""
    if settings.head == Bilinear.name:
        return Bilinear(width, shift)
    if settings.head == Cosine.name:
        return Cosine(width, shift)
    if settings.head == Product.name:
        return Product(width, shift, settings.hidden)
    if settings.attention:
        return Attentive(mean, std, shift, settings.hidden, width)
    return Network(mean, std, shift, settings.hidden)
