"""The one list of stages, in the order data flows: it drives the command line, the DAGs and the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What --als-model says where a stage must use the factors trained as of its own date: the nights that training replays.
SAME_DATE = "same-date"


@dataclass(frozen=True)
class Stage:
    """One noun: the job file, the library function, the DAG task and the test carry its name."""

    name: str
    rhythm: Literal["night", "training"]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    about: str


STAGES = (
    Stage(
        "clean_events",
        "night",
        ("raw events",),
        ("clean_events", "rejected_events", "late_arrivals"),
        "check, de-duplicate and weigh the raw events of the ingest dates not yet cleaned",
    ),
    Stage(
        "item_profiles",
        "night",
        ("raw items", "clean_events"),
        ("item_profiles",),
        "each item as of the night: attributes, availability, counts, the text given to BERT",
    ),
    Stage(
        "user_profiles",
        "night",
        ("raw users", "clean_events", "item_profiles"),
        ("user_profiles",),
        "each user as of the night: activity, recent items, affinities, eligibility, the text given to BERT",
    ),
    Stage(
        "champion",
        "night",
        ("clean_events", "item_profiles", "user_profiles", "als_item_factors", "ranker_models"),
        ("champions",),
        "let newer models serve if they are not worse than those that do",
    ),
    Stage(
        "als_item_factors",
        "training",
        ("clean_events",),
        ("als_item_factors",),
        "factorize everything up to the date; the item factors are kept under a model id",
    ),
    Stage(
        "als_user_factors",
        "night",
        ("clean_events", "als_item_factors", "champions"),
        ("als_user_factors", "night_models"),
        "solve each changed user exactly against the frozen item factors",
    ),
    Stage(
        "item_embeddings",
        "night",
        ("item_profiles",),
        ("item_embeddings",),
        "encode the item texts that were never encoded",
    ),
    Stage(
        "user_embeddings",
        "night",
        ("user_profiles", "item_profiles", "item_embeddings"),
        ("user_embeddings",),
        "encode new user texts and mix them with the recent items' vectors",
    ),
    Stage(
        "candidates",
        "night",
        (
            "clean_events",
            "item_profiles",
            "user_profiles",
            "als_item_factors",
            "als_user_factors",
            "item_embeddings",
            "user_embeddings",
        ),
        ("candidates",),
        "nominate items for every list from every source, already masked",
    ),
    Stage(
        "ranker_examples",
        "training",
        ("candidates", "item_profiles", "user_profiles", "clean_events"),
        ("ranker_examples",),
        "candidates of past cuts with what the users then did",
    ),
    Stage(
        "ranker_model",
        "training",
        ("ranker_examples", "item_profiles", "user_profiles", "item_embeddings", "user_embeddings"),
        ("ranker_models",),
        "train networks and trees with Horovod, and choose how they are blended",
    ),
    Stage(
        "ranked_topk",
        "night",
        ("candidates", "item_profiles", "user_profiles", "item_embeddings", "user_embeddings", "ranker_models"),
        ("ranked_topk", "shortfalls"),
        "score the candidates and cut every list to K",
    ),
    Stage(
        "audit",
        "night",
        (
            "ranked_topk",
            "shortfalls",
            "item_profiles",
            "user_profiles",
            "clean_events",
            "als_item_factors",
            "als_user_factors",
            "item_embeddings",
            "user_embeddings",
        ),
        ("audit_results",),
        "check tonight's lists and what they rest on, against earlier nights too; a failed check stops the night",
    ),
    Stage(
        "published_topk",
        "night",
        ("ranked_topk", "audit_results"),
        ("published_topk",),
        "publish the audited lists in one commit that touches only what changed",
    ),
    Stage(
        "export",
        "night",
        ("published_topk",),
        ("files",),
        "hand the changes since the last export to downstream systems",
    ),
    Stage(
        "outcomes",
        "night",
        ("clean_events", "ranked_topk"),
        ("outcomes",),
        "impressions, clicks and conversions of the lists that were served",
    ),
)
NIGHT = tuple(stage for stage in STAGES if stage.rhythm == "night")
# What makes a night's lists, of models that are given: those who judge models let no champion choose them.
LISTING = tuple(
    found for found in NIGHT[: [found.name for found in NIGHT].index("ranked_topk") + 1] if found.name != "champion"
)


def stage(name: str) -> Stage:
    """The stage of that name."""
    return next(stage for stage in STAGES if stage.name == name)


@dataclass(frozen=True)
class Step:
    """One stage of a training run: for its own date, or of the `cut`-th past night before it, which it replays."""

    stage: Stage
    cut: int = 0

    @property
    def label(self) -> str:
        """A name that is unique in the run."""
        return f"{self.stage.name}_of_cut_{self.cut}" if self.cut else self.stage.name


# What a past night must be rebuilt of before its candidates can teach the ranker.
_REPLAYED = (
    "item_profiles",
    "user_profiles",
    "als_item_factors",
    "als_user_factors",
    "item_embeddings",
    "user_embeddings",
    "candidates",
)


def training(past_cuts: int) -> tuple[Step, ...]:
    """The steps of a training: rebuild past cuts with factors of their own date, learn from them, factorize anew."""
    replays = [Step(stage(name), cut) for cut in range(past_cuts, 0, -1) for name in _REPLAYED]
    return (*replays, *(Step(stage(name)) for name in ("ranker_examples", "ranker_model", "als_item_factors")))
