"""What an evaluation found, as plain values for the report: per cut, and pooled over the cuts (`cut` is None)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from nightrec.evaluation.baselines import BY_SEGMENT
from nightrec.evaluation.judge import Cut
from nightrec.evaluation.lists import OURS, PER_METHOD, item_figures
from nightrec.metrics import bootstrap, probability, reach
from nightrec.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Judged:
    """One method: means over users with intervals (None where no user has the figure), of NDCG also what nightrec has
    more; `coverage` at k (pooled: the mean of the cuts); `setting` is what the window before the cut chose."""

    cut: date | None
    method: str
    setting: str
    figures: Mapping[str, Interval | None]
    gain: Interval | None
    coverage: float


@dataclass(frozen=True)
class Slice:
    """NDCG at k for a slice of users, recall at k and at 100 for one of items: of nightrec, of the best baseline over
    all users, and what nightrec has more, paired; of users also what it has more than segment popularity (None for
    items)."""

    cut: date | None
    name: str
    figure: str
    depth: int
    best: str
    ours: Interval
    theirs: Interval
    gain: Interval
    over_segment: Interval | None


@dataclass(frozen=True)
class Reached:
    """Recall of a candidate source (or of the union of all) within a depth; for `oracle` the NDCG at k that the union
    permits."""

    cut: date | None
    source: str
    depth: int
    mean: float


@dataclass(frozen=True)
class Calibrated:
    """Predicted probabilities of the items listed for known users, against what these then did: mean probability, share
    of ones, expected calibration error, cross-entropy."""

    cut: date | None
    rows: int
    expected: float
    seen: float
    error: float
    log_loss: float


@dataclass(frozen=True)
class Rated:
    """Root mean squared error of `rows` predicted ratings, by what predicted them: factors or network."""

    cut: date | None
    predicted_by: str
    rows: int
    error: float


@dataclass(frozen=True)
class Findings:
    """Everything, pooled and per cut, for lists of `k` and `days` after each of `cuts`. `rated` is empty where nothing
    predicts ratings. `costs`: seconds of cores that nominating took in the mean of the nights, by source and beside
    them."""

    ours: str
    k: int
    days: int
    cuts: tuple[date, ...]
    judged: tuple[Judged, ...]
    slices: tuple[Slice, ...]
    reached: tuple[Reached, ...]
    calibrated: tuple[Calibrated, ...]
    rated: tuple[Rated, ...]
    costs: Mapping[str, float]


def findings(cuts: Sequence[Cut], k: int, days: int) -> Findings:
    """From what was found at each cut. Pooled are the methods that every cut has; empty where nobody did anything."""
    every: list[tuple[date | None, Sequence[Cut]]] = [(None, cuts), *((cut.date, [cut]) for cut in cuts)]
    judged, slices = [], []
    for when, some in every:
        figures = bootstrap.pooled([cut.figures for cut in some])
        own = _judged(when, some, figures)
        judged += own
        slices += _slices(when, some, figures, own, k)
    return Findings(
        OURS, k, days, tuple(cut.date for cut in cuts), tuple(judged), tuple(slices),
        tuple(
            Reached(when, source, depth, mean)
            for when, some in every
            for (source, depth), mean in reach.pooled([cut.reach for cut in some]).items()
        ),
        tuple(_calibrated(when, probability.pooled([cut.calibration for cut in some])) for when, some in every),
        tuple(rated for when, some in every for rated in _rated(when, some)),
        {part: sum(cut.costs.get(part, 0.0) for cut in cuts) / len(cuts) for cut in cuts for part in cut.costs},
    )  # fmt: skip


def _judged(when: date | None, cuts: Sequence[Cut], figures: bootstrap.Resampled) -> list[Judged]:
    methods = [name for name in cuts[0].methods if all(name in cut.methods for cut in cuts)]
    return [
        Judged(
            when,
            method,
            "; ".join(dict.fromkeys(cut.settings[method] for cut in cuts)),
            {name: figures.interval((method, name)) for name in PER_METHOD},
            figures.interval((OURS, "ndcg"), minus=(method, "ndcg")),
            sum(cut.coverage[method] for cut in cuts) / len(cuts),
        )
        for method in methods
        if figures.interval((method, "ndcg"))
    ]


def best_baseline(judged: Sequence[Judged]) -> str:
    """The baseline of highest NDCG among those of one cut, ties to the first; '' where there is none."""
    worth = {one.method: figure.mean for one in judged if one.method != OURS and (figure := one.figures["ndcg"])}
    return max(worth, key=lambda name: worth[name], default="")


def _slices(
    when: date | None, cuts: Sequence[Cut], figures: bootstrap.Resampled, judged: Sequence[Judged], k: int
) -> list[Slice]:
    best = best_baseline(judged)
    of_users = dict.fromkeys(name for cut in cuts for name in cut.slices)
    known: list[tuple[str, str, int, Hashable]] = [(name, "ndcg", k, name) for name in of_users]
    known += [(name, "recall", depth, (name, depth)) for name, depth in item_figures(k)]
    found = []
    for name, figure, depth, kind in known:
        ours, theirs = ((method, kind) for method in (OURS, best))
        if not best or not (mine := figures.interval(ours)) or not (other := figures.interval(theirs)):
            continue
        gain = figures.interval(ours, minus=theirs)
        assert gain is not None  # both have rows
        beside = (BY_SEGMENT, kind)
        over = figures.interval(ours, minus=beside) if name in of_users and beside in figures.names else None
        found.append(Slice(when, name, figure, depth, best, mine, other, gain, over))
    return found


def _rated(when: date | None, cuts: Sequence[Cut]) -> list[Rated]:
    found = []
    for name in dict.fromkeys(name for cut in cuts for name in cut.squared):
        parts = [cut.squared[name] for cut in cuts if name in cut.squared]
        both = probability.SquaredError(sum(part.rows for part in parts), sum(part.total for part in parts))
        found.append(Rated(when, name, both.rows, both.root))
    return found


def _calibrated(when: date | None, found: probability.Calibration) -> Calibrated:
    rows = int(found.rows.sum())
    expected, seen = (float(part.sum() / max(rows, 1)) for part in (found.expected, found.seen))
    return Calibrated(when, rows, expected, seen, found.error, found.log_loss)
