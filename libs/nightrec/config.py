"""The one TOML file of a deployment, validated once. Every value has a default that suits a log of unknown kind."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nightrec.errors import UsageError
from nightrec.tables import EVENT_TYPES

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

# Days that settings have which nobody set and the log has not decided yet (nightrec.adaptive).
HORIZON, RECENT_DAYS = 14, 28
OptionalColumn = Literal["event_id", "value", "text", "sent_ts", "received_ts", "context"]
EventType = Literal["view", "click", "like", "dislike", "favourite", "comment", "rating", "purchase", "impression"]


def cache_folder() -> Path:
    """Where downloads and builds are kept per user, outside every checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nightrec"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paths(_Section):
    """Where things lie; relative paths start at the folder of the TOML file."""

    raw: str = Field("raw", description="raw root: events/, items/, users/, each with ingest_date=YYYY-MM-DD folders")
    warehouse: str = Field("warehouse", description="one Delta table per folder")
    models: str = Field("models", description="ranker weights, checkpoints of trainings; every worker must reach it")
    exports: str = Field("exports", description="what downstream systems pick up")
    reports: str = Field("reports", description="books and pictures for people")


class Spark(_Section):
    """How Spark runs where spark-submit does not say so."""

    master: str = Field("local[*]", description="Spark master; spark-submit's own wins")
    partitions: Positive = Field(
        4, description="partitions after a shuffle: 2 to 4 per core; more when a partition outgrows 200 MB"
    )
    driver_memory: str = Field(
        "4g", pattern=r"^\d+[kmgt]$", description="heap of the driver (and of the workers in local mode)"
    )
    ui: bool = Field(False, description="serve Spark's web page while a job runs")
    options: dict[str, str] = Field(default_factory=dict, description="any other Spark setting, by its own name")


class Events(_Section):
    """How raw events become clean ones."""

    weights: dict[EventType, Annotated[float, Field(ge=0)]] = Field(
        default={
            "view": 1.0,
            "click": 1.0,
            "like": 3.0,
            "dislike": 0.0,
            "favourite": 3.0,
            "comment": 2.0,
            "rating": 3.0,
            "purchase": 5.0,
            "impression": 0.0,
        },
        description="strength of each event type as a sign of interest; types left out keep their default",
    )
    min_positive_rating: float = Field(
        0.0, description="a rating below this weighs 0: seen, not liked. 0 counts every rating"
    )
    value_ranges: dict[EventType, tuple[float, float]] = Field(
        default={"purchase": (1e-9, 1e9), "rating": (-1000.0, 1000.0)},
        description="smallest and largest value accepted, by event type; a return (a purchase below 0) is rejected",
    )
    late_after_days: Count = Field(
        1, description="an event that arrives more days than this after its own date is late: kept and flagged"
    )
    late_window_days: Positive = Field(
        1826,
        description="an event that arrives more days than this after its own date is set aside as too_late: five "
        "years, so that a history of some years may arrive on one date, and a clock that fell back ten years is none; "
        "a month suits a source that has delivered its history",
    )
    clock_tolerance_minutes: Positive = Field(
        60,
        description="where received_ts and sent_ts differ by more than this, the device's clock is off, and the "
        "event's time is moved by the difference; queues take minutes, wrong time zones whole hours. More where "
        "received_ts is when a batch was loaded",
    )
    future_tolerance_hours: Count = Field(
        24, description="an event later than the end of its ingest date by more than this is rejected"
    )
    dropped_columns: list[OptionalColumn] = Field(
        default_factory=list,
        description="optional raw columns that the source no longer fills: any other that was there night by night and "
        "is empty throughout a night stops it",
    )
    earliest_date: date = Field(date(1990, 1, 1), description="an event before this date has an impossible time")
    robot_events_per_hour: Positive = Field(
        1000, description="a user with more events in one hour of one ingest date is a robot that date"
    )


class Profiles(_Section):
    """How items and users are described as of a night."""

    recent_days: Positive | None = Field(
        None,
        description="window of recent counts, recent popularity and trends, in days up to the night; not set, the log "
        "decides by which foretells best what is taken up: 28 unless 1, 3, 7, 14 or 56 are clearly better",
    )
    recent_items: Positive = Field(
        50, description="latest distinct items kept per user, which speak for the user's taste"
    )
    segment_attribute: str | None = Field(
        None, description="user attribute that names the segment; without it, the favourite category"
    )
    eligible_days: Positive = Field(
        36500, description="users whose last event is older get no list; users of the snapshot without events do"
    )

    @property
    def recent(self) -> int:
        """`recent_days`, whether or not it has been decided."""
        return self.recent_days or RECENT_DAYS


class Horovod(_Section):
    """The processes that train together, factors and ranker alike: as many executor cores at once."""

    processes: Positive = Field(2, description="processes, one on each core or GPU")
    start_timeout_s: Positive = Field(120, description="seconds to wait for all processes to start")
    deadline_s: Positive = Field(
        900,
        description="seconds without a sign from any process (a step, a tree, rows read) after which all are ended; "
        "half an iteration of the factors is the longest: 0.3 s for 2.5 million pairs in a process",
    )
    checkpoint_steps: Positive = Field(
        500,
        description="steps of a network after which it is saved, beside once an epoch: a training that died goes on "
        "from there, and of trees from the last kind that was done. Factors are saved after each iteration",
    )
    gathered_mb: Count = Field(
        2048, description="factors of one side that a process may hold whole, in MB; larger ones come block by block"
    )


class Als(_Section):
    """Alternating least squares."""

    feedback: Literal["implicit", "explicit"] = Field(
        "implicit", description="explicit: squared error of the latest rating of each pair, all other events left out"
    )
    rank: Positive = Field(32, description="length of a factor vector")
    iterations: Positive = Field(8, description="alternations of training")
    alpha: float = Field(10.0, gt=0, description="confidence is unobserved + alpha x log(1 + weight); Hu et al. 2008")
    unobserved: float = Field(1.0, gt=0, description="confidence of a pair that was never seen; Rendle et al. 2021")
    regularisation: float = Field(0.05, gt=0, description="times (entries + offset x other side) ^ power of a row")
    frequency_power: float = Field(1.0, ge=0, description="1 as in Zhou et al. 2008; 0: every row alike")
    frequency_offset: float = Field(0.0, ge=0, description="Rendle et al. 2021 take the confidence of unseen pairs")
    blocks: Positive = Field(8, description="user and item blocks, pinned: another count is another model")
    seed: int = 17


class Encoder(_Section):
    """The BERT that turns texts into vectors."""

    model: str = Field("all-MiniLM-L6-v2", description="name of the encoder")
    revision: str = Field(
        "53aa51172d14", description="first 12 digits of the sha-256 of its weights; checked when loaded"
    )
    folder: str = Field("", description="folder of weights and tokenizer on every worker; empty: the user's cache")
    batch_tokens: Positive = Field(
        2048, description="tokens of texts encoded together: 2048 stay in a core's cache, a GPU takes 65536"
    )
    max_tokens: Positive = Field(64, description="longer texts are cut")
    user_text_share: Share = Field(0.2, description="weight of the user's own text beside the mean of the recent items")

    @property
    def id(self) -> str:
        """Encoder id and revision: what the embedding tables are keyed by."""
        return f"{self.model}@{self.revision}"

    @property
    def path(self) -> Path:
        """Folder of weights and tokenizer."""
        return Path(self.folder) if self.folder else cache_folder() / "encoders" / self.model


class Pick(_Section):
    """An item picked by hand."""

    item: str = Field(min_length=1, description="its id")
    start: date | None = Field(None, alias="from", description="first day on which lists with it are read")
    until: date | None = Field(None, description="last such day")
    slot: Positive | None = Field(None, description="place that it has in every list but those of similar items")
    priority: int = Field(0, description="larger comes first; of equal ones the earlier of the list")

    @model_validator(mode="after")
    def _days_in_order(self) -> Pick:
        if self.start and self.until and self.start > self.until:
            raise ValueError(f"from = {self.start} lies after until = {self.until}")
        return self


class Candidates(_Section):
    """Which items are nominated for each list."""

    als: Count = Field(60, description="items nominated by the factors; 0 switches the source off")
    neighbour_users: Count = Field(60, description="by what the users most alike acted on")
    cooccurrence: Count = Field(60, description="by items acted on by the same users")
    bm25: Count = Field(60, description="by the same, weighed by how rare users and items are")
    linear: Count = Field(60, description="by the linear model over items that is best in closed form")
    transitions: Count = Field(60, description="by what the same users took up next")
    texts: bool | None = Field(
        None,
        description="whether text and keywords nominate; not set, the log decides: if the texts of what a user takes "
        "up on different days are more alike than those of any two items",
    )
    text: Count = Field(30, description="by texts near the recent items', as BERT reads them")
    keywords: Count = Field(30, description="by the words that texts share with the recent items'")
    attributes: Count = Field(30, description="by the categories, tags and attributes shared with the recent items")
    habit: Count = Field(100, description="of the user's own items, where repeats are allowed")
    newcomers: Count = Field(50, description="by what newcomers took up on their first day, for users without events")
    segment: Count = Field(30, description="by popularity in the user's segment")
    segment_prior: float = Field(
        50.0,
        ge=0,
        description="recent users by which everybody's most popular item leads in every segment, others in proportion",
    )
    trending: Count = Field(50, description="by users of the last seven days, or of a quarter of profiles.recent_days")
    popularity: Count = Field(50, description="by recent popularity")
    new_items: Count = Field(
        10, description="drawn by chance among new items, likelier what is near by its text, the probability as score"
    )
    new_item_events: Count = Field(5, description="events that an item has at most while it is new")
    editorial: tuple[Pick, ...] = Field(
        (),
        description="items picked by hand, in order: the last step of the ladder. Each is an id or a table {item, "
        "from, until, slot, priority}: shown on the days from .. until, of larger priority first, and in lists of "
        "users, segments and everyone at place slot, where a user may be shown it",
    )
    neighbours: Positive = Field(
        100, description="similar items kept per item by each source that knows them: 12 bytes each in every worker"
    )
    basket: Positive = Field(
        200,
        description="latest items per user that count as own and for pairs of items; bounds their cost at users x "
        "basket squared",
    )
    reference_users: Positive = Field(
        20_000,
        description="users, by hash of their ids, among whom those alike are looked for: 24 bytes x basket each in "
        "every worker",
    )
    nearest_users: Positive = Field(100, description="of those the most alike, who speak for a user")
    linear_items: Positive = Field(
        6000, description="items of the linear model, those with the most users: 24 bytes x its square on the driver"
    )
    linear_penalty: float = Field(200.0, gt=0, description="regularisation of the linear model")
    repeats_allowed: bool | None = Field(
        None,
        description="whether items a user has acted on may come back; not set, the log decides once it spans 28 days",
    )
    min_cooccurrence: Positive = Field(2, description="users who must share two items before they are neighbours")
    item_memory_mb: Positive = Field(
        1024,
        description="item vectors that one worker holds, with what makes them searchable: 4 bytes x items x (2 x rank "
        "+ text width), and 12 x (3 x rank + text width) + 144 per available item; beyond it they come from a file on "
        "each host, block by block",
    )


    @field_validator("editorial", mode="before")
    @classmethod
    def _plain_picks(cls, value: Any) -> Any:
        """An id alone is a pick without conditions."""
        if not isinstance(value, list | tuple):
            return value
        return [{"item": pick} if isinstance(pick, str) else pick for pick in value]

    @property
    def resolved(self) -> Candidates:
        """With the sources that `texts` switches off at 0."""
        return self.model_copy(update={"text": 0, "keywords": 0}) if self.texts is False else self

    def picks(self, run_date: date) -> tuple[Pick, ...]:
        """The editorial picks of the day after a night, on which its lists are read, in order; an item once."""
        day = run_date + timedelta(days=1)
        active = [p for p in self.editorial if (p.start or day) <= day <= (p.until or day)]
        first: dict[str, Pick] = {}
        for pick in sorted(active, key=lambda pick: -pick.priority):
            first.setdefault(pick.item, pick)
        return tuple(first.values())


class Ranker(_Section):
    """The network that orders candidates, trained by Horovod."""

    horizon_days: Positive | None = Field(
        None,
        description="what a user does in this many days after a cut makes the labels; not set, the log decides: 14, "
        "fewer where it is short, 28 where few users come back within 14",
    )
    past_cuts: Positive = Field(
        3,
        description="cuts one horizon apart, as many of these as have a horizon of events before them; each but the "
        "first judges what was learned from those before it, of a single one a fifth of its users",
    )
    negatives_share: float = Field(
        0.4, gt=0, le=1, description="share of the examples without action that is kept for training"
    )
    loss: Literal["binary", "pairwise", "listwise", "both", "squared"] = Field(
        "both",
        description="of the network. binary: cross-entropy of each example; pairwise: of two of a list, one acted on; "
        "listwise: of a softmax over the list; both: a network by binary, one by listwise; squared: error of ratings",
    )
    head: Literal["deep", "bilinear", "cosine", "product"] = Field(
        "deep",
        description="of the network. deep: over all features; the others over the text vectors u, i of user and item "
        "alone. bilinear: (W u).i + b; cosine: with a learned weight per dimension; product: a network over u times i",
    )
    attention: Count | None = Field(
        None,
        description="latest items of the user, by their text vectors, that the deep network looks at; 0: none; not "
        "set, the log decides: 10 where texts tell what users take up and lists hold what is new to them, of up to "
        "a million items",
    )
    cosine_penalty: float = Field(
        1e-3, ge=0, description="of the cosine's weights, times the sum of their squared logarithms"
    )
    popularity_correction: float = Field(
        0.0,
        description="times the logarithm of the share of lists that hold the item, taken off its logit in training: 1 "
        "as in Yi et al. 2019; below 0, rare items gain",
    )
    hidden: tuple[Positive, ...] = Field((64, 32), description="widths of the hidden layers")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    batch: Positive = Field(
        1024,
        description="examples per step over all processes; averaging takes 3 ms a step: large logs gain from 16384 on",
    )
    epochs: Positive = Field(20, description="passes over the examples at most")
    patience: Positive = Field(3, description="epochs without a better validation loss before training stops")
    kind_values: dict[EventType, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="what one event of a kind is worth: lists are then ordered by an item's expected value, not by the "
        "probability of any action; empty: off",
    )
    trees: Count = Field(300, description="gradient-boosted trees of each kind; 0: the network alone")
    tree_depth: Positive = Field(6, description="splits from a tree's root to its leaves at most")
    tree_learning_rate: float = Field(0.05, gt=0, le=1, description="share of a tree that counts")
    tree_leaf_weight: float = Field(20.0, ge=0, description="least sum of second derivatives in a leaf")
    tree_penalty: float = Field(5.0, ge=0, description="regularisation of a leaf's value")
    tree_rows: float = Field(0.8, gt=0, le=1, description="share of the examples drawn for each tree")
    tree_features: float = Field(0.5, gt=0, le=1, description="share of the features drawn for each tree")
    blend: Literal["best", "network", "trees", "all"] = Field(
        "best", description="whose scores are averaged; best: all, unless others order the past cuts clearly better"
    )
    coverage_price: Share = Field(
        0.002,
        description="share of the NDCG on the past cuts that may be given for lists that hold more of the catalogue: "
        "as much is taken off the scores of popular items",
    )
    seed: int = 17

    @property
    def horizon(self) -> int:
        """`horizon_days`, whether or not it has been decided."""
        return self.horizon_days or HORIZON

    @property
    def losses(self) -> tuple[str, ...]:
        """A network for each."""
        return ("binary", "listwise") if self.loss == "both" else (self.loss,)

    @property
    def reads_vectors(self) -> bool:
        """Whether features are not enough for the network."""
        return self.head != "deep" or bool(self.attention)

    @model_validator(mode="after")
    def _has_what_it_blends(self) -> Ranker:
        if self.blend in ("trees", "all") and not self.trees:
            raise ValueError(f"blend = {self.blend!r} needs trees above 0")
        return self


class Lists(_Section):
    """What is published."""

    k: Positive = Field(10, description="items per list")
    new_items: Count = Field(
        0,
        description="last places of a list that are kept for the new items drawn for it, where none of these has a "
        "better one; not in lists of similar items",
    )
    new_items_share: Share = Field(1.0, description="share of the lists, by chance each night, that keep such places")
    min_users: Positive = Field(
        1,
        description="distinct users on whom each row of lists for nobody in particular rests (segments, everyone, "
        "similar items): what fewer did is left to the next step of the ladder, or left out. 1 takes what there is, as "
        "a log of few users has no more; where strangers read the lists, 5 or 10 keep what one user did from showing",
    )
    attribution_days: Positive = Field(
        14, description="an event counts for the list it names if that list was last ranked at most so many days before"
    )


def _in_order(levels: tuple[float, float]) -> tuple[float, float]:
    if levels[0] > levels[1]:
        raise ValueError(f"the first, which warns, lies beyond the second, which stops: {levels[0]:g}, {levels[1]:g}")
    return levels


# Two limits of one figure: beyond the first the night is warned of, beyond the second it stops. inf never stops.
Levels = Annotated[tuple[float, float], AfterValidator(_in_order)]


class Audit(_Section):
    """When a night may not be published. Pairs are limits of a figure: beyond the first it warns, beyond the second it
    stops; inf never does. What few rows may show by chance counts as chance."""

    min_user_share: Share = Field(
        0.99,
        description="share of eligible users with a full list, or a recorded shortfall because fewer than K were left",
    )
    min_catalogue_share: Share = Field(
        0.01, description="share of available items that are on any list: below it the lists have collapsed"
    )
    min_score_spread: float = Field(
        0.0,
        ge=0,
        description="smallest difference between best and worst score over all lists, 20 at least; 0: off, for in a "
        "log with nothing to learn all scores are one, and lists follow popularity. 1e-6 elsewhere",
    )
    trailing_days: Positive = Field(
        28, description="days before the night that it is compared with: four of each day of the week"
    )
    volume: Levels = Field(
        (0.3, 0.4),
        description="share of the usual lines of a date that is missing; usual is the median of the same days of the "
        "week. Days of a steady shop differ by a tenth; where they differ more, four times that difference counts",
    )
    volume_rise: float = Field(
        5.0, gt=1, description="times the usual lines beyond which it warns: promotions bring three times as many"
    )
    rejects: Levels = Field(
        (0.05, 0.25), description="share of rejected lines above the usual one: a renamed column rejects all lines"
    )
    robots: Levels = Field(
        (0.1, 0.3), description="share of robots' lines above the usual one; a twentieth of all lines is usual"
    )
    duplicates: Levels = Field(
        (0.1, 0.4), description="share of duplicates above the usual one: a day delivered twice is a half"
    )
    late: Levels = Field(
        (0.3, 0.8), description="share of late events above the usual one; devices that were offline bring some"
    )
    event_dates: Levels = Field(
        (0.3, 0.8), description="share of events of another day than that of their arrival, above the usual one"
    )
    event_types: Levels = Field(
        (0.25, 0.5),
        description="share of the events that are of other types than usual: a renamed type moves its share",
    )
    event_values: Levels = Field(
        (1.0, 2.0), description="difference of the mean of log(1 + |value|) from the usual one: cents for euros are 4.6"
    )
    unknown_items: Levels = Field(
        (0.1, 0.5), description="share of events of items outside the catalogue above the usual one: other ids"
    )
    unknown_users: Levels = Field(
        (0.3, 0.6),
        description="share of the date's users who never came before, above the usual one: a campaign brings some, ids "
        "of another form bring nobody but such",
    )
    stale_inputs: Levels = Field(
        (3.0, 7.0),
        description="age of events, items and users in days, over the longest of the last 28 gaps between two",
    )
    model_age_days: Levels = Field(
        (60.0, 400.0), description="days since item factors and ranker were trained: a year has all its seasons"
    )
    catalogue_drop: Levels = Field(
        (0.1, 0.4), description="share of the usual items that the catalogue lacks: half a file is a half"
    )
    users_lost: Levels = Field(
        (0.05, 0.2), description="share of the users' lists of the night before that are gone: some users grow too old"
    )
    quiet_churn: Levels = Field(
        (0.3, 0.6),
        description="share of the items in lists of users without news that changed since the night before, on the way "
        "from the usual share to all: .1 to .2 is usual in a small shop, lists of other users are beyond .8",
    )
    churn: Levels = Field((0.5, 0.9), description="the same of all users' lists, where news may change whole lists")
    score_drift: Levels = Field(
        (0.5, 1.5),
        description="difference of the mean score from that of earlier nights with the same settings and models, in "
        "standard deviations of a score: .02 from night to night in a small shop",
    )
    one_item: Levels = Field(
        (0.5, 0.9), description="share of users' lists that hold one item, on the way from the usual share to all"
    )
    popular_share: Share = Field(
        0.05,
        description="an available item that was on such a share of the users' lists of the night before, and on five "
        "of them, may not be on no list at all",
    )


class Gate(_Section):
    """When item factors and ranker that were trained anew replace those that serve."""

    margin: Share = Field(
        0.05,
        description="share of the champion's NDCG by which a challenger's may be lower: of a few hundred users equal "
        "models differ by so much",
    )
    min_users: Positive = Field(
        100, description="users with a list who came back after the challenger's training: fewer do not judge it yet"
    )
    max_wait_days: Count = Field(
        14, description="days after its training from which on a challenger is judged by whoever came, few or nobody"
    )
    is_on: bool = Field(True, description="whether challengers are judged; else the newest models serve, as trained")


class Export(_Section):
    """What downstream systems get."""

    formats: tuple[Literal["parquet", "jsonl"], ...] = ("parquet", "jsonl")


class Retention(_Section):
    """What is kept so that one can go back."""

    nights: Positive = Field(
        30, description="published nights that one can go back to, build again and compare: a month ends in each"
    )


class Privacy(_Section):
    """Who may learn which user a row is about."""

    pseudonyms: bool = Field(
        False,
        description="replace user ids by keyed hashes when events are cleaned. Off by default: whoever reads the lists "
        "must then hold the key too, and history that was cleaned before has to be cleaned anew (`nightrec rekey`)",
    )
    key_file: str = Field(
        "privacy.key",
        description="file of mode 0600 with a key of at least 32 characters, on every worker; starts at the TOML's "
        "folder. The variable NIGHTREC_PRIVACY_KEY wins over it. Lost, no id can be told from its pseudonym again",
    )


class Config(_Section):
    """A deployment's settings, by stage."""

    paths: Paths = Paths()
    spark: Spark = Spark()
    events: Events = Events()
    profiles: Profiles = Profiles()
    horovod: Horovod = Horovod()
    als: Als = Als()
    encoder: Encoder = Encoder()
    candidates: Candidates = Candidates()
    ranker: Ranker = Ranker()
    lists: Lists = Lists()
    gate: Gate = Gate()
    audit: Audit = Audit()
    export: Export = Export()
    retention: Retention = Retention()
    privacy: Privacy = Privacy()

    def event_weights(self) -> dict[str, float]:
        """Weight of every event type: the config's, and the default for types it leaves out."""
        defaults: dict[str, float] = Events.model_fields["weights"].default
        weights = defaults | {str(kind): weight for kind, weight in self.events.weights.items()}
        return {kind: weights[kind] for kind in EVENT_TYPES}

    @property
    def nights_kept(self) -> int:
        """How many nights back a manifest may lie: of the window, of lists that events may name, of a training's cuts
        (see past.clean_up)."""
        return max(self.retention.nights, self.lists.attribution_days, self.ranker.past_cuts * self.ranker.horizon)

    def training_cuts(self, as_of: date, first: date) -> list[date]:
        """The cuts a ranker trained as of a date learns from, oldest first; the last one is for validation.

        Those with a horizon of the log, which begins at `first`, before them; in a shorter log the last alone.
        """
        step = timedelta(days=self.ranker.horizon)
        cuts = [as_of - step * n for n in range(self.ranker.past_cuts, 0, -1)]
        return [cut for cut in cuts if cut - step >= first] or cuts[-1:]


def load(path: str | Path) -> Config:
    """The config of a TOML file, its paths made absolute. Raises UsageError naming every problem and its mend.

    A file that says `extends = "nightrec.toml"` holds only what differs from that one; paths start at the latter's
    folder.
    """
    file = Path(path)
    values, root = _values(file), file.resolve().parent
    if extends := values.pop("extends", None):
        base = root / str(extends)
        values, root = overlaid(_values(base), values), base.resolve().parent
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"config {file}:\n" + "\n".join(f"  {_problem(e)}" for e in error.errors())) from None
    paths = {name: _absolute(root, value) for name, value in config.paths.model_dump().items()}
    privacy = config.privacy.model_copy(update={"key_file": _absolute(root, config.privacy.key_file)})
    return config.model_copy(update={"paths": Paths(**paths), "privacy": privacy})


def _values(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UsageError(f"config {file} does not exist; `nightrec init SOURCE --out FOLDER` writes one")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config {file} is not TOML: {error}") from None


def overlaid(values: Mapping[str, Any], differing: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a config, and those of their keys that differ in place of theirs."""
    merged = {**values, **differing}
    for section in values.keys() & differing.keys():
        if isinstance(values[section], dict) and isinstance(differing[section], dict):
            merged[section] = {**values[section], **differing[section]}
    return merged


def _absolute(root: Path, value: str) -> str:
    return value if "://" in value else str((root / value).resolve())


def _problem(error: Any) -> str:
    """One validation error in a line, with the nearest known key where one is unknown."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
    fields: Any = Config
    for part in error["loc"][:-1]:
        # A number is a place in a list of tables.
        fields = get_args(fields)[0] if isinstance(part, int) else fields.model_fields[part].annotation
    known = [field.alias or name for name, field in fields.model_fields.items()]
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
    return f"unknown key {where}; did you mean {near[0]}?"
