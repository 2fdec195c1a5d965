"""The rules of `nightrec.events.clean` for a first load, written for DuckDB by somebody who uses DuckDB.

Same fates, same accepted rows, same rejected text; the accepted and the rejected become Parquet by ingest date.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from nightrec.config import Events

_FIELDS = ("user_id", "item_id", "event_type", "event_ts", "event_id", "value", "text", "sent_ts", "received_ts")
_SHAPE = "{" + ", ".join(f'"{name}": "VARCHAR"' for name in _FIELDS) + ', "context": "MAP(VARCHAR, VARCHAR)"}'
_ISO = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)? ?(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?"
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


def clean(raw: Path, out: Path, settings: Events, weights: dict[str, float], threads: int) -> None:
    """Clean every ingest date under `raw`/events into `out`/{clean,rejected} and `out`/counts.parquet."""
    out.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as db:
        db.execute(f"SET threads = {threads}; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
        db.execute(f"SET temp_directory = '{out}/spill'; SET memory_limit = '4GB'")
        db.execute(_reasoned(raw, settings, weights))
        db.execute(_fated(settings))
        for fates, name, columns in (
            ("'accepted', 'late'", "clean", f"* EXCLUDE ({_NOT_CLEAN})"),
            ("'rejected'", "rejected", "ingest_date, reason, file, raw"),
        ):
            db.execute(
                f"COPY (SELECT {columns} FROM fated WHERE fate IN ({fates})) TO '{out}/{name}' "
                "(FORMAT parquet, PARTITION_BY (ingest_date), OVERWRITE_OR_IGNORE)"
            )
        db.execute(
            "COPY (SELECT ingest_date, fate, coalesce(reason, '') AS reason, count(*) AS row_count FROM fated "
            f"GROUP BY ALL) TO '{out}/counts.parquet' (FORMAT parquet)"
        )


_NOT_CLEAN = "logged_ts, file, raw, reason, fate, event_id, number, is_broken, copy"


def _time(name: str) -> str:
    trimmed = f"trim({name})"
    millis = f"make_timestamptz(try_cast({trimmed} AS BIGINT) * 1000)"
    return (
        f"CASE WHEN regexp_full_match({trimmed}, '-?\\d{{1,14}}') THEN {millis} "
        f"WHEN regexp_full_match({trimmed}, '{_ISO}') THEN try_cast({trimmed} AS TIMESTAMPTZ) END"
    )


def _is_blank(name: str) -> str:
    return rf"NOT coalesce(regexp_matches({name}, '[^\s\p{{Z}}]'), false)"


def _reasoned(raw: Path, settings: Events, weights: dict[str, float]) -> str:
    """Each line parsed once, its values, its event_key, and why it is rejected for what it says alone."""
    kinds = ", ".join(f"'{kind}'" for kind in weights)
    weighed = " ".join(f"WHEN '{kind}' THEN {weight}" for kind, weight in weights.items())
    ranges = " OR ".join(
        f"(event_type = '{kind}' AND value NOT BETWEEN {low} AND {high})"
        for kind, (low, high) in settings.value_ranges.items()
    )
    tolerance = f"INTERVAL {settings.clock_tolerance_minutes} MINUTE"
    latest = f"(ingest_date + 1)::TIMESTAMPTZ + INTERVAL {settings.future_tolerance_hours} HOUR"
    off = (
        f"coalesce(abs(epoch_us(received_ts) - epoch_us(sent_ts)) > {settings.clock_tolerance_minutes * 60_000_000} "
        f"AND event_ts <= sent_ts + {tolerance} "
        f"AND received_ts BETWEEN DATE '{settings.earliest_date}' AND {latest}, false)"
    )
    return f"""
    CREATE TABLE reasoned AS
    WITH lines AS (
        SELECT raw, regexp_extract(filename, 'ingest_date=([0-9-]+)', 1)::DATE AS ingest_date,
            parse_filename(filename) AS file,
            CASE WHEN json_valid(raw) THEN json_type(raw) <> 'OBJECT' ELSE true END AS is_broken,
            json_transform(CASE WHEN json_valid(raw) THEN raw END, '{_SHAPE}') AS e
        FROM read_csv('{raw}/events/*/*.jsonl.gz', columns = {{'raw': 'VARCHAR'}}, delim = '\x01', quote = '',
            escape = '', header = false, auto_detect = false, filename = true, hive_partitioning = false)
        WHERE trim(raw) <> ''
    ), valued AS (
        SELECT ingest_date, file, raw, is_broken, e.user_id, e.item_id, lower(trim(e.event_type)) AS event_type,
            {_time("e.event_ts")} AS event_ts, nullif(trim(e.value), '') AS number,
            CASE WHEN regexp_full_match(trim(e.value), '{_NUMBER}') THEN try_cast(trim(e.value) AS DOUBLE) END AS value,
            e.text, {_time("e.sent_ts")} AS sent_ts, {_time("e.received_ts")} AS received_ts, e.context, e.event_id
        FROM lines
    ), clocked AS (
        SELECT * REPLACE (CASE WHEN {off} THEN event_ts + (received_ts - sent_ts) ELSE event_ts END AS event_ts),
            event_ts AS logged_ts
        FROM valued
    )
    SELECT *, event_ts::DATE AS event_date,
        CASE WHEN event_type = 'rating' AND value < {settings.min_positive_rating} THEN 0.0
            ELSE CASE event_type {weighed} END END::DOUBLE AS weight,
        event_ts::DATE < ingest_date - {settings.late_after_days} AS is_late,
        sha256(CASE WHEN is_broken THEN 'line ' || raw WHEN NOT {_is_blank("event_id")} THEN 'id ' || event_id
            ELSE 'content ' || to_json({{u: user_id, i: item_id, t: event_type, e: epoch_us(logged_ts), v: value,
                x: text, c: list_sort(map_entries(context))}})::VARCHAR END)[:32] AS event_key,
        CASE WHEN is_broken THEN 'broken_line'
            WHEN {_is_blank("user_id")} THEN 'missing_user_id'
            WHEN {_is_blank("item_id")} THEN 'missing_item_id'
            WHEN event_ts IS NULL OR event_ts::DATE < DATE '{settings.earliest_date}' THEN 'bad_time'
            WHEN event_type IS NULL OR event_type NOT IN ({kinds}) THEN 'unknown_event_type'
            WHEN number IS NOT NULL AND (value IS NULL OR isinf(value)) OR {ranges}
                OR event_type = 'rating' AND value IS NULL THEN 'bad_value'
            WHEN event_ts > (ingest_date + 1)::TIMESTAMPTZ + INTERVAL {settings.future_tolerance_hours} HOUR
                THEN 'future'
            WHEN event_ts::DATE < ingest_date - {settings.late_window_days} THEN 'too_late' END AS reason
    FROM clocked
    """


def _fated(settings: Events) -> str:
    """Robots, then copies: what is left of each line."""
    return f"""
    CREATE TABLE fated AS
    WITH robots AS (
        SELECT DISTINCT user_id, ingest_date FROM reasoned WHERE reason IS NULL
        GROUP BY user_id, ingest_date, date_trunc('hour', event_ts)
        HAVING count(DISTINCT event_key) > {settings.robot_events_per_hour}
    ), judged AS (
        SELECT r.* REPLACE (
            CASE WHEN reason IS NULL AND robots.user_id IS NOT NULL THEN 'robot' ELSE reason END AS reason)
        FROM reasoned r LEFT JOIN robots ON r.user_id = robots.user_id AND r.ingest_date = robots.ingest_date
    ), numbered AS (
        SELECT *, row_number() OVER (
            PARTITION BY event_key ORDER BY reason IS NOT NULL, ingest_date, user_id, item_id, event_type, event_ts,
            value NULLS FIRST, text NULLS FIRST, list_sort(map_entries(context)) NULLS FIRST, sent_ts NULLS FIRST,
            received_ts NULLS FIRST) AS copy
        FROM judged
    )
    SELECT *, CASE WHEN reason IS NOT NULL THEN 'rejected' WHEN copy > 1 THEN 'duplicate'
        WHEN is_late THEN 'late' ELSE 'accepted' END AS fate
    FROM numbered
    """
