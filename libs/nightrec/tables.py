"""Every table's contract, in the order in which a night writes them.

Suffixes: `_id` external string, `_ts` UTC timestamp, `_date` UTC date, `_count` rows or users, `_share` in 0..1.
`run_date` is the night a row belongs to: it rests on nothing that arrived after that date.
"""

from __future__ import annotations

from nightrec.contract import Column, Table

# Candidate sources in ladder order: from the most personal to what anyone may be shown. A source is nominated by
# the candidates stage; the steps are how a list without a personal score is filled.
SOURCES = (
    "als", "neighbour_users", "cooccurrence", "bm25", "linear", "transitions", "text", "keywords", "attributes",
    "habit", "newcomers", "segment", "trending", "popularity", "new_items", "editorial",
)  # fmt: skip
LADDER = {
    "als": "personal",
    "neighbour_users": "personal",
    "cooccurrence": "similar",
    "bm25": "similar",
    "linear": "similar",
    "transitions": "similar",
    "text": "similar",
    "keywords": "similar",
    "attributes": "similar",
    "habit": "personal",
    "newcomers": "newcomer",
    "segment": "segment",
    "trending": "popular",
    "popularity": "popular",
    "new_items": "new",
    "editorial": "editorial",
}
# Days of recent users, side by side: which of them speaks for tomorrow differs by log and by season.
WINDOWS = (1, 3, 7, 14, 28, 56)
# Days over which days of the week are told apart: whole weeks, and few enough for the bits of one number.
WEEKDAY_DAYS = 56
LIST_KINDS = ("user", "segment", "item", "everyone")
EVENT_TYPES = ("view", "click", "like", "dislike", "favourite", "comment", "rating", "purchase", "impression")

_RUN_DATE = Column("run_date", "date", "the night")
_ITEM_ID = Column("item_id", "string", "external item id, as logged", check="item_id <> ''")
_USER_ID = Column("user_id", "string", "external user id, as logged", check="user_id <> ''")
_LIST_KIND = Column(
    "list_kind",
    "string",
    "whom the list is for: user, segment, item (similar items) or everyone",
    check="list_kind IN ('user', 'segment', 'item', 'everyone')",
)
_TRAINED_FROM = (
    Column("settings", "map<string,string>", "every setting of the training"),
    Column("data_versions", "map<string,bigint>", "Delta version of each input table"),
)
_LIST_KEY = Column("list_key", "string", "user id, segment name, item id, or the word everyone")
_LIST_ID = Column("list_id", "string", "fingerprint of kind, key and items in order: what a logged impression names")
_SOURCE = Column("source", "string", "the candidate source that ranked the item highest")
_REASON = Column("reason", "string", "why this item, in words for people")
_PROBABILITY = Column(
    "probability",
    "double",
    "of an item on a place that lists.new_items keeps: that the list has such places and drew the item at this turn, "
    "given what it drew before; null for all others",
    nullable=True,
)
_FACTORS = Column("factors", "array<float>", "factor vector, as long as the model's rank")
_ALS_MODEL = Column("als_model", "string", "id of the item factors used")

CLEAN_EVENTS = Table(
    name="clean_events",
    stage="clean_events",
    grain="one accepted event",
    key=("event_key",),
    partition=("ingest_date",),
    columns=(
        Column("ingest_date", "date", "the raw folder the event arrived in"),
        Column("event_key", "string", "fingerprint of event_id where logged, else of the event's content"),
        _USER_ID,
        _ITEM_ID,
        Column("event_type", "string", "what happened", check=f"event_type IN {EVENT_TYPES}"),
        Column("event_ts", "timestamp", "when it happened, by the event's own time"),
        Column("event_date", "date", "UTC date of event_ts"),
        Column("value", "double", "rating or quantity, as logged", nullable=True),
        Column("text", "string", "comment or review", nullable=True),
        Column("weight", "double", "strength as a sign of interest, from the config; 0 = none", check="weight >= 0"),
        Column("is_late", "boolean", "arrived later than events.late_after_days after it happened"),
        Column("sent_ts", "timestamp", "when the device sent it", nullable=True),
        Column("received_ts", "timestamp", "when the collector received it", nullable=True),
        Column("context", "map<string,string>", "device, region, surface, list_id, rank ...", nullable=True),
    ),
)

REJECTED_EVENTS = Table(
    name="rejected_events",
    stage="clean_events",
    grain="one raw line that was not accepted",
    key=(),
    partition=("ingest_date",),
    columns=(
        Column("ingest_date", "date", "the raw folder the line arrived in"),
        Column(
            "reason",
            "string",
            "broken_line, missing_user_id, missing_item_id, bad_time, unknown_event_type, bad_value, future or robot",
        ),
        Column("file", "string", "file name inside the ingest folder"),
        Column("raw", "string", "the line as it came"),
    ),
)

ITEM_PROFILES = Table(
    name="item_profiles",
    stage="item_profiles",
    grain="one item of the catalogue or of the events, as of the night",
    key=("run_date", "item_id"),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        _ITEM_ID,
        Column("title", "string", "catalogue title; the item id where there is none"),
        Column("description", "string", "catalogue description", nullable=True),
        Column("categories", "array<string>", "catalogue categories; empty where unknown"),
        Column("tags", "array<string>", "catalogue tags; empty where unknown"),
        Column(
            "attributes",
            "map<string,string>",
            "catalogue attributes; one called price, in letters of any case, is also read as a number",
            nullable=True,
        ),
        Column("in_catalogue", "boolean", "in the snapshot of the night, or there is no snapshot at all"),
        Column(
            "is_available",
            "boolean",
            "in_catalogue and inside available_from .. available_until on the day after the night",
        ),
        Column("event_count", "bigint", "events with weight above 0 up to the night", check="event_count >= 0"),
        Column("user_count", "bigint", "distinct users of those events", check="user_count >= 0"),
        Column(
            "recent_user_count",
            "bigint",
            "distinct users in the last profiles.recent_days",
            check="recent_user_count >= 0",
        ),
        Column(
            "popularity_share",
            "double",
            "recent_user_count over the largest of the night; 0 in a night without events",
            check="popularity_share BETWEEN 0 AND 1",
        ),
        Column(
            "window_user_counts",
            "array<bigint>",
            f"distinct users in the last {', '.join(map(str, WINDOWS))} days; shorter windows lie inside longer ones",
        ),
        Column(
            "weekday_user_days",
            "array<bigint>",
            f"distinct pairs of a user and a day with such events in the last {WEEKDAY_DAYS} days, by day of the week, "
            "Monday first",
        ),
        Column("repeat_user_count", "bigint", "users with such events on more than one day"),
        Column("repeat_gap_days", "double", "mean days between those days of one user; null without", nullable=True),
        Column("first_event_ts", "timestamp", "first event with weight above 0", nullable=True),
        Column("last_event_ts", "timestamp", "last event with weight above 0", nullable=True),
        Column("text", "string", "the exact text given to BERT"),
        Column("text_hash", "string", "sha-256 of text in hex"),
    ),
)

USER_PROFILES = Table(
    name="user_profiles",
    stage="user_profiles",
    grain="one user of the snapshot or of the events, as of the night",
    key=("run_date", "user_id"),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        _USER_ID,
        Column("attributes", "map<string,string>", "from the user snapshot", nullable=True),
        Column("blocked_items", "array<string>", "items this user must never be shown; empty where none"),
        Column("event_count", "bigint", "events with weight above 0 up to the night", check="event_count >= 0"),
        Column("item_count", "bigint", "distinct items of those events", check="item_count >= 0"),
        Column(
            "recent_event_count", "bigint", "those in the last profiles.recent_days", check="recent_event_count >= 0"
        ),
        Column("last_event_ts", "timestamp", "last event with weight above 0", nullable=True),
        Column("days_since_last", "int", "whole days from that event to the night", nullable=True),
        Column(
            "recent_items",
            "array<string>",
            "latest distinct items with weight above 0, newest first, profiles.recent_items at most",
        ),
        Column(
            "category_shares", "map<string,double>", "share of the user’s events in each category; empty where unknown"
        ),
        Column(
            "segment",
            "string",
            "profiles.segment_attribute, else favourite category; null where neither is known",
            nullable=True,
        ),
        Column("is_eligible", "boolean", "gets a list tonight"),
        Column("text", "string", "the exact text given to BERT; null where nothing is known", nullable=True),
        Column("text_hash", "string", "sha-256 of text in hex", nullable=True),
    ),
)

ALS_ITEM_FACTORS = Table(
    name="als_item_factors",
    stage="als_item_factors",
    grain="one item in one factorization",
    key=("model_id", "item_id"),
    partition=("as_of_date", "model_id"),
    columns=(
        Column("as_of_date", "date", "trained on what had arrived by this date"),
        Column("model_id", "string", "id of the factorization: date and settings"),
        _ITEM_ID,
        _FACTORS,
    ),
)

ALS_USER_FACTORS = Table(
    name="als_user_factors",
    stage="als_user_factors",
    grain="one user with events, solved against one set of item factors",
    key=("run_date", "als_model", "user_id"),
    partition=("run_date", "als_model"),
    columns=(_RUN_DATE, _ALS_MODEL, _USER_ID, _FACTORS),
)

ITEM_EMBEDDINGS = Table(
    name="item_embeddings",
    stage="item_embeddings",
    grain="one text of an item, encoded once per encoder",
    key=("encoder", "text_hash"),
    partition=("encoder",),
    columns=(
        Column("encoder", "string", "encoder id and revision"),
        Column("text_hash", "string", "item_profiles.text_hash"),
        Column("vector", "array<float>", "unit vector, mean-pooled by the encoder"),
    ),
)

USER_EMBEDDINGS = Table(
    name="user_embeddings",
    stage="user_embeddings",
    grain="one user with a text or with items that have one",
    key=("run_date", "encoder", "user_id"),
    partition=("run_date", "encoder"),
    columns=(
        _RUN_DATE,
        Column("encoder", "string", "encoder id and revision"),
        _USER_ID,
        Column("text_hash", "string", "user_profiles.text_hash", nullable=True),
        Column("text_vector", "array<float>", "unit vector of that text; reused while the text stays", nullable=True),
        Column("vector", "array<float>", "unit vector: mean of the recent items’ vectors and the text’s"),
    ),
)

CANDIDATES = Table(
    name="candidates",
    stage="candidates",
    grain="one item nominated for one list by at least one source, already masked",
    key=("run_date", "als_model", "list_kind", "list_key", "item_id"),
    partition=("run_date", "als_model"),
    columns=(
        _RUN_DATE,
        _ALS_MODEL,
        _LIST_KIND,
        _LIST_KEY,
        _ITEM_ID,
        *(
            column
            for source in SOURCES
            for column in (
                Column(
                    f"{source}_score",
                    "float",
                    f"score by source {source} in the form that ranked the item highest; null where none nominated it",
                    nullable=True,
                ),
                Column(
                    f"{source}_rank",
                    "int",
                    f"1-based rank by source {source}; null where it did not nominate the item",
                    nullable=True,
                ),
            )
        ),
        _SOURCE,
        Column(
            "because_item_id",
            "string",
            "the user’s own item that speaks most for this one, where the source can say",
            nullable=True,
        ),
        Column(
            "features",
            "array<float>",
            "what the ranker is told, in the order of nightrec.features; null in lists that it does not order",
            nullable=True,
        ),
    ),
)

RANKER_EXAMPLES = Table(
    name="ranker_examples",
    stage="ranker_examples",
    grain="one candidate of a past cut, with what the user then did",
    key=("as_of_date", "cut_date", "user_id", "item_id"),
    partition=("as_of_date",),
    columns=(
        Column("as_of_date", "date", "training date: labels rest on nothing that arrived later"),
        Column("cut_date", "date", "features rest on nothing that arrived after this date"),
        Column(
            "fold",
            "int",
            "number of the cut in order of time, from 0; of a single cut, 1 for a fifth of its users and else 0. It "
            "judges what was learned from all folds before",
            check="fold >= 0",
        ),
        Column("is_lesson", "boolean", "whether a ranker learns from it: acted on, or drawn among the others"),
        _USER_ID,
        _ITEM_ID,
        Column(
            "label",
            "float",
            "1 where the user acted on the item in the horizon after the cut, else 0",
            check="label IN (0, 1)",
        ),
        Column("kinds", "array<string>", "event types of a weight above 0 by which the user did so; empty without"),
        Column("rating", "double", "the latest rating among them; null where there is none", nullable=True),
        Column("features", "array<float>", "in the order of nightrec.features.FEATURES"),
    ),
)

RANKER_MODELS = Table(
    name="ranker_models",
    stage="ranker_model",
    grain="one trained ranker",
    key=("model_id",),
    partition=("as_of_date", "model_id"),
    columns=(
        Column("as_of_date", "date", "training date"),
        Column("model_id", "string", "id of the ranker: date and settings"),
        Column("weights", "string", "safetensors file under models/; empty: there was nothing to learn from"),
        Column("weights_sha256", "string", "fingerprint of that file"),
        Column("features", "array<string>", "feature names in order"),
        *_TRAINED_FROM,
        Column("processes", "int", "Horovod processes"),
        Column("best_epochs", "map<string,int>", "of each network, the 1-based epoch of lowest loss on the last fold"),
        Column(
            "epochs",
            "array<struct<network:string,epoch:int,train_loss:double,valid_loss:double,valid_ndcg:double>>",
            "metrics per epoch of each network, judged on the last fold",
        ),
        Column("choices", "map<string,double>", "NDCG of each blend, pooled over the folds from the second on"),
        Column(
            "calibration",
            "array<struct<kind:string,positives:bigint,error_before:double,error_after:double>>",
            "expected calibration error on the latest cut, of any action and by event type (ranker/kinds.py)",
        ),
    ),
)

NIGHT_MODELS = Table(
    name="night_models",
    stage="als_user_factors",
    grain="the models one night uses, pinned when it first asks",
    key=("run_date",),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        _ALS_MODEL,
        Column("ranker_model", "string", "id of the ranker"),
        Column("encoder", "string", "encoder id and revision"),
    ),
)

RANKED_TOPK = Table(
    name="ranked_topk",
    stage="ranked_topk",
    grain="one item of one list, not yet served",
    key=("run_date", "list_kind", "list_key", "rank"),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        _LIST_KIND,
        _LIST_KEY,
        _LIST_ID,
        Column("rank", "int", "1-based position"),
        _ITEM_ID,
        Column(
            "score",
            "double",
            "ranker probability, or value by ranker.kind_values; 1/position down the ladder; 6 decimals; a pinned pick "
            "has that of the row before it",
        ),
        Column(
            "source",
            "string",
            "the source that ranked the item highest; in a list filled down the ladder, the first step that had it",
        ),
        _REASON,
        _PROBABILITY,
    ),
)

SHORTFALLS = Table(
    name="shortfalls",
    stage="ranked_topk",
    grain="one list with fewer than K items",
    key=("run_date", "list_kind", "list_key"),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        _LIST_KIND,
        _LIST_KEY,
        Column("wanted", "int", "K"),
        Column("found", "int", "items in the list, 0 where there is none", check="found < wanted"),
        Column("cause", "string", "what was left after masking, in words"),
    ),
)

AUDIT_RESULTS = Table(
    name="audit_results",
    stage="audit",
    grain="one check of one night",
    key=("run_date", "check_name"),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        Column("check_name", "string", "what was checked"),
        Column("severity", "string", "note, warn or stop", check="severity IN ('note', 'warn', 'stop')"),
        Column("passed", "boolean", "the check held"),
        Column("found", "double", "the figure found"),
        Column("limit", "double", "the figure it is held against"),
        Column("detail", "string", "one sentence, with an example where it failed"),
    ),
)

PUBLISHED_TOPK = Table(
    name="published_topk",
    stage="published_topk",
    grain="one list, as served",
    key=("list_kind", "list_key"),
    partition=(),
    change_feed=True,
    columns=(
        _LIST_KIND,
        _LIST_KEY,
        _LIST_ID,
        Column(
            "items",
            "array<struct<rank:int,item_id:string,score:double,source:string,reason:string>>",
            "the list, best first",
        ),
        Column("changed_date", "date", "the night that last changed this list"),
    ),
)

OUTCOMES = Table(
    name="outcomes",
    stage="outcomes",
    grain="what was done one night with one served item",
    key=("run_date", "list_id", "item_id"),
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        _LIST_ID,
        _LIST_KIND,
        _LIST_KEY,
        _ITEM_ID,
        Column("rank", "int", "position at which it was served; null where the list did not hold it", nullable=True),
        Column("source", "string", "source at which it was served; null where the list did not hold it", nullable=True),
        _PROBABILITY,
        Column("impression_count", "bigint", "impression events"),
        Column("click_count", "bigint", "view and click events"),
        Column("conversion_count", "bigint", "all other events with weight above 0"),
    ),
)

RUNS = Table(
    name="runs",
    stage="",
    grain="one training, or one trial of settings",
    key=("run_id",),
    partition=("as_of_date", "run_id"),
    columns=(
        Column("as_of_date", "date", "the training date; of a trial the last cut"),
        Column("run_id", "string", "the model id; of a trial its study and number"),
        Column("kind", "string", "what was run", check="kind IN ('als', 'ranker', 'trial')"),
        Column("settings", "map<string,string>", "every setting of the training; of a trial those that it tried"),
        Column("data_versions", "map<string,bigint>", "Delta version of each input table; of a trial none"),
        Column("figures", "map<string,double>", "what came out"),
        Column("curves", "map<string,array<double>>", "how: by name a value per iteration, epoch or cut"),
    ),
)

LEDGER = Table(
    name="ledger",
    stage="",
    grain="one fate of rows in one stage of one night",
    key=("run_date", "stage", "fate", "reason"),
    # By stage alone: stages that run at once write side by side, and each has few files for all its nights.
    partition=("stage",),
    columns=(
        _RUN_DATE,
        Column("stage", "string", "the stage whose books these are"),
        Column(
            "fate",
            "string",
            "read, accepted, duplicate, rejected, late, written, unchanged, deleted, encoded, shortfall ...",
        ),
        Column("reason", "string", "detail of the fate; empty where there is none"),
        Column("row_count", "bigint", "rows with that fate", check="row_count >= 0"),
        Column("run_id", "string", "the run that wrote the books"),
    ),
)

_READ_OR_WRITTEN = "array<struct<name:string,part:string,version:bigint,rows:bigint,fingerprint:string>>"

MANIFESTS = Table(
    name="manifests",
    stage="",
    grain="one stage of one night that was committed: what it was made from, by what, with which settings",
    key=("run_date", "stage", "is_replay"),
    # One file per night, written anew with each stage: what is asked is always a night.
    partition=("run_date",),
    columns=(
        _RUN_DATE,
        Column("stage", "string", "the stage"),
        Column("is_replay", "boolean", "the past night was rebuilt for a training, with factors of its own date"),
        Column("run_id", "string", "the run that committed it"),
        Column("code", "string", "version of nightrec and fingerprint of its source files"),
        Column("config", "string", "fingerprint of settings"),
        Column("settings", "string", "what the stage may read of the config, with what the log has decided, as JSON"),
        Column("seeds", "map<string,bigint>", "seeds, by their settings"),
        Column("block_counts", "map<string,bigint>", "blocks, partitions and processes, by their settings"),
        Column("models", "map<string,string>", "models used, by the columns of night_models; empty where none was"),
        Column("inputs", _READ_OR_WRITTEN, "what was read: table, partitions, Delta version, rows, which files"),
        Column("outputs", _READ_OR_WRITTEN, "what was written, likewise"),
    ),
)

TABLES = (
    CLEAN_EVENTS,
    REJECTED_EVENTS,
    ITEM_PROFILES,
    USER_PROFILES,
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    ITEM_EMBEDDINGS,
    USER_EMBEDDINGS,
    CANDIDATES,
    RANKER_EXAMPLES,
    RANKER_MODELS,
    NIGHT_MODELS,
    RANKED_TOPK,
    SHORTFALLS,
    AUDIT_RESULTS,
    PUBLISHED_TOPK,
    OUTCOMES,
    RUNS,
    LEDGER,
    MANIFESTS,
)
