"""What each part of the system is worth: the system as it is, and without the part, judged on the same users.

Stages up to the candidates are run once per cut. A variant reads the candidates through a function that leaves its part
out, labels and learns from what is left, and ranks it: the night's own stages, with the variant's settings. What a
variant does not change is not made again: examples of the same candidates. So what is measured of a source is what
would be lost if it named no item and told the ranker nothing, not what its work costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from nightrec import runner
from nightrec.adaptive import LATEST
from nightrec.config import Config, Ranker
from nightrec.errors import UsageError
from nightrec.evaluation import judge, lists, protocol
from nightrec.evaluation.findings import Slice
from nightrec.evaluation.kept import Kept
from nightrec.evaluation.pace import Pace
from nightrec.evaluation.trials import follows_from
from nightrec.features import FEATURES, GROUPS
from nightrec.metrics import bootstrap
from nightrec.metrics.bootstrap import Interval
from nightrec.models import als_model_id, ranker_model_id
from nightrec.night import Books, Night, View
from nightrec.pipeline import stage
from nightrec.tables import CANDIDATES, SOURCES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.runner import Watch

KINDS = ("sources", "features", "heads", "blends", "nights")
WHOLE = "everything"
WITHOUT_TEXTS = "without any texts"
MOST_NIGHTS = 4
# Where the log decides, one of them is the system as it is.
ATTENTION = {"the deep head with attention": LATEST, "the deep head without attention": 0}
# What new items are reached by without anybody's having acted on them.
TEXTS = ("text", "keywords", "new_items")


@dataclass(frozen=True)
class Variant:
    """The system but for one thing: settings of the ranker, or a view of the candidates."""

    kind: str
    name: str
    ranker: Mapping[str, Any] = field(default_factory=dict)
    view: View | None = None


@dataclass(frozen=True)
class Part:
    """A variant's NDCG over all cuts, and how much more the whole system has: what the part is worth. Where texts are
    left out also the recall of both in slices of items, at K and at 100: what texts do for new ones."""

    kind: str
    name: str
    ndcg: Interval
    worth: Interval
    seconds: float
    items: tuple[Slice, ...]


@dataclass(frozen=True)
class Ablation:
    """The whole system's NDCG at `k` over the `days` after each of `cuts`, and the parts, kind by kind."""

    k: int
    days: int
    cuts: tuple[date, ...]
    whole: Interval | None
    parts: tuple[Part, ...]


def variants(config: Config) -> list[Variant]:
    """Every variant of a deployment, in the order of KINDS; what is switched off cannot be left out."""
    given = config.candidates.resolved
    # What the log decides is not known yet: habits may be on.
    off = {"habit"} if given.repeats_allowed is False else set()
    on = [source for source in SOURCES if getattr(given, source) and source not in off]
    blends = {"network": "the network alone", "trees": "the trees alone", "all": "network and trees"}
    ranker = config.ranker
    return [
        *(Variant("sources", f"without {name}", view=partial(without_sources, sources=[name])) for name in on),
        Variant("sources", WITHOUT_TEXTS, view=partial(without_sources, sources=TEXTS)),
        *(Variant("features", f"without features {name}", view=partial(without, groups=[name])) for name in GROUPS),
        *(
            Variant("heads", f"the {head} head{', alone' if blend else ''}", {"head": head} | blend)
            for head in get_args(Ranker.model_fields["head"].annotation)
            for blend in ({}, {"blend": "network"})[: 2 if ranker.trees else 1]
            if head != ranker.head
        ),
        *(
            Variant("heads", f"{name}{', alone' if blend else ''}", {"head": "deep", "attention": latest} | blend)
            for name, latest in ATTENTION.items()
            for blend in ({}, {"blend": "network"})[: 2 if ranker.trees else 1]
            if latest != ranker.attention
        ),
        *(
            Variant("blends", name, {"blend": blend})
            for blend, name in blends.items()
            if ranker.trees and blend != ranker.blend
        ),
        *(
            Variant("nights", f"{count} past {'night' if count == 1 else 'nights'}", {"past_cuts": count})
            for count in range(1, MOST_NIGHTS + 1)
            if count != ranker.past_cuts
        ),
    ]


def chosen(config: Config, asked: Sequence[str]) -> list[Variant]:
    """The variants of the kinds or names in `asked`; all of them for none. Raises UsageError where one is unknown."""
    every = variants(config)
    unknown = sorted(set(asked) - {*KINDS, *(variant.name for variant in every)})
    if unknown:
        names = ", ".join(f"'{variant.name}'" for variant in every)
        raise UsageError(f"no such part: {', '.join(unknown)}; there are {', '.join(KINDS)}, or one of {names}")
    return [variant for variant in every if not asked or {variant.kind, variant.name} & set(asked)]


def without_sources(candidates: DataFrame, sources: Sequence[str]) -> DataFrame:
    """CANDIDATES as if the sources had named nothing: without those that they alone nominated, their features 0."""
    others = [F.col(f"{other}_rank") for other in SOURCES if other not in sources]
    left = candidates.where(F.coalesce(*others).isNotNull())
    groups = [group for group in GROUPS if group.split(" ")[0] in sources]
    kept = without(left, groups, fewer=sources)
    unknown = {name: F.lit(None).cast(type_) for name, type_ in _NOMINATED.items()}
    return kept.withColumns({f"{source}_{name}": null for source in sources for name, null in unknown.items()})


_NOMINATED = {"score": "float", "rank": "int"}


def without(candidates: DataFrame, groups: Sequence[str], fewer: Sequence[str] = ()) -> DataFrame:
    """CANDIDATES with the features of some groups 0, and a nomination less for each of the sources `fewer` that had
    named them."""
    places = [FEATURES.index(name) for group in groups for name in GROUPS[group]]
    nominated = sum((F.col(f"{source}_rank").isNotNull().cast("int") for source in fewer), F.lit(0))

    def changed(features: pa.Array, nominated: pa.Array) -> pa.Array:
        return cleared(features, nominated.to_numpy(zero_copy_only=False), places)

    clear = arrow_udf(changed, "array<float>")  # type: ignore[call-overload]  # as in ranker/score.py
    return candidates.withColumn("features", clear("features", nominated))


def cleared(features: pa.ListArray, nominated: npt.NDArray[np.integer], places: Sequence[int]) -> pa.ListArray:
    """Rows of FEATURES (null stays null) with those at `places` 0, and so many nominations less."""
    known = features.is_valid().to_numpy(zero_copy_only=False)
    values = features.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, len(FEATURES))
    values[:, FEATURES.index("nomination_count")] -= nominated[known]
    values[:, list(places)] = 0
    offsets = np.concatenate([[0], np.cumsum(known) * len(FEATURES)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()), mask=pa.array(~known))


def ablate(
    spark: SparkSession, config: Config, wanted: list[date], days: int, asked: Sequence[Variant], watch: Watch,
    tell: Callable[[Books], None], say: Callable[[str], None],
) -> Ablation:  # fmt: skip
    """Run the system and every variant of `asked` at each cut, in a new warehouse (`config` is `protocol.apart`'s).

    What an earlier start with the same code, settings and raw files has judged is not judged again. Variants that learn
    from the examples of the whole system come first: these are there.
    """
    kept = Kept.of(config, wanted, days)
    left = {cut: [one for one in asked if not kept.has(cut, one.name)] for cut in wanted}
    todo, every = sum(map(len, left.values())), len(wanted) * len(asked)
    if todo < every:
        say(f"{every - todo} of {every} variants were judged by an earlier start")
    pace = Pace(todo)
    open_cuts = [cut for cut in wanted if left[cut] or not kept.has(cut, WHOLE)]
    idle = pace.started
    for night, replayed in protocol.nights(spark, config, open_cuts, days, watch, tell) if open_cuts else ():
        # What is left is variants: the nights that they start from do not count.
        pace.started += time.monotonic() - idle
        offered = judge.offered(night)
        log = judge.Log.of(night, days, offered["item_id"].combine_chunks())
        figures = partial(judge.ndcg, log=log, slices=lists.members(offered["event_count"].to_numpy()))
        whole = figures(night, name=WHOLE)
        if kept.has(night.date, WHOLE) and not _same(kept.get(night.date, WHOLE, whole.names)[0], whole):
            say(f"the lists as of {night.date} are others than those of an earlier start: all variants are judged anew")
            kept.forget(night.date)
            todo += len(asked) - len(left[night.date])
            pace.of, left[night.date] = todo, list(asked)
        kept.put(night.date, WHOLE, whole, 0)
        for variant, took in _judged(night, left[night.date], figures, kept, replayed, watch, tell):
            say(f"{variant.name}: {took:.0f} s as of {night.date}; variant {pace.told()}")
        log.users.unpersist()
        idle = time.monotonic()
    return _found(kept, config.lists.k, days, asked)


def _judged(
    night: Night, missing: Sequence[Variant], figures: Callable[..., bootstrap.Resampled], kept: Kept,
    replayed: set[date], watch: Watch, tell: Callable[[Books], None],
) -> Iterator[tuple[Variant, float]]:  # fmt: skip
    """Judge the variants that are missing at a cut and keep their `figures`; each with the seconds that it took."""
    learned = before = _examples(night.config)
    for variant in sorted(missing, key=lambda one: _examples(_night(night, one).config, one) != learned):
        started = time.monotonic()
        changed = _night(night, variant)
        examples = _examples(changed.config, variant)
        for books in _run(changed, watch, replayed, again=examples != before):
            tell(books)
        before = examples
        found = figures(changed, name=variant.name)
        took = time.monotonic() - started
        kept.put(night.date, variant.name, found, took)
        yield variant, took


def _same(one: bootstrap.Resampled, other: bootstrap.Resampled) -> bool:
    """Whether two are of the same lists; their sums may have been added up in another order."""
    return np.allclose(one.totals, other.totals) and np.allclose(one.sums, other.sums)


def _found(kept: Kept, k: int, days: int, asked: Sequence[Variant]) -> Ablation:
    """What was judged at all cuts, pooled."""
    judged = {
        (cut, name): kept.get(cut, name, judge.ndcg_names(name, k))
        for cut in kept.cuts
        for name in (WHOLE, *(variant.name for variant in asked))
    }
    pooled = bootstrap.pooled([figures for figures, _ in judged.values()])
    parts = [
        Part(variant.kind, variant.name, ndcg, worth, seconds, _items(pooled, variant, k))
        for variant in asked
        if (ndcg := pooled.interval(variant.name)) and (worth := pooled.interval(WHOLE, minus=variant.name))
        for seconds in [sum(judged[cut, variant.name][1] for cut in kept.cuts)]
    ]
    return Ablation(k, days, tuple(kept.cuts), pooled.interval(WHOLE), tuple(parts))


def _items(pooled: bootstrap.Resampled, variant: Variant, k: int) -> tuple[Slice, ...]:
    """Recall of slices of items, where texts are left out: of the whole, without, and what the whole has more."""
    return tuple(
        Slice(None, kind[0], "recall", kind[1], variant.name, whole, part, gain, None)
        for kind in lists.item_figures(k)
        if variant.name == WITHOUT_TEXTS
        if (whole := pooled.interval((WHOLE, kind))) and (part := pooled.interval((variant.name, kind)))
        if (gain := pooled.interval((WHOLE, kind), minus=(variant.name, kind)))
    )


def _night(night: Night, variant: Variant) -> Night:
    """The night of a cut with a variant's settings, under the same hold on the warehouse."""
    ranker = night.config.ranker.model_copy(update=dict(variant.ranker))
    config = night.config.model_copy(update={"ranker": ranker})
    models = als_model_id(night.date, config), ranker_model_id(night.date, config)
    views = {CANDIDATES.name: variant.view} if variant.view else {}
    return Night(night.spark, config, night.date, *models, night.store, warm=True, views=views)


def _examples(config: Config, variant: Variant | None = None) -> tuple[str, str]:
    """What the examples of a variant follow from; of the whole system without one."""
    return follows_from("ranker_examples", config), variant.name if variant and variant.view else ""


def _run(night: Night, watch: Watch, replayed: set[date], *, again: bool) -> Iterator[Books]:
    """Past nights that no cut has replayed yet, then what a variant runs again: its examples only if they are others
    than those that are there."""
    yield from runner.replay(night, watch, replayed)
    replayed |= set(night.training_cuts())
    for name in ("ranker_examples", "ranker_model", "ranked_topk")[0 if again else 1 :]:
        with watch(f"{name} {night.date}"):
            # As deep as the lists of the whole system, which they are paired with.
            books = runner.run_stage(night.deeper(lists.DEEP) if name == "ranked_topk" else night, stage(name))
        yield books
