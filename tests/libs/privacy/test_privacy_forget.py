"""Forgetting without Spark: who is served stays known, and raw files are read as cleaning reads them."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract_rows import filled
from deltalake import DeltaTable, Schema
from nightrec_jobs import published_topk
from pyspark.sql import SparkSession

from nightrec import models
from nightrec.config import Config
from nightrec.contract import Table
from nightrec.errors import UsageError
from nightrec.night import Night
from nightrec.past.undo import is_quiet, kept, roll_back, served
from nightrec.privacy import forget, rekey
from nightrec.privacy.person import Person
from nightrec.privacy.raw_lines import without
from nightrec.store import _PROPERTIES, Store, arrow, location, version
from nightrec.tables import ALS_ITEM_FACTORS, NIGHT_MODELS, PUBLISHED_TOPK, RANKER_MODELS

N1, N2, N3, N4, N5, N6 = (dt.date(2026, 3, day) for day in range(1, 7))
NO_SPARK = cast("SparkSession", None)
OLD = {"als_model": "als-1", "ranker_model": "als-1-ranker"}


def created(warehouse: str, *tables: Table) -> None:
    """Tables of the contract's columns, text but for dates and lists: Spark would parse their types."""
    for table in tables:
        kinds = {"date": pa.date32(), "array": pa.list_(pa.struct({"item_id": pa.string()}))}
        fields = [(c.name, kinds.get(c.type.partition("<")[0], pa.string())) for c in table.columns]
        feed = _PROPERTIES | {"delta.enableChangeDataFeed": f"{table.change_feed}".lower()}
        place, parts = location(warehouse, table), list(table.partition) or None
        DeltaTable.create(place, Schema.from_arrow(pa.schema(fields)), partition_by=parts, configuration=feed)


def publish(store: Store, night: dt.date, als: str, *users: str) -> None:
    """What the night's MERGE does, in two commits."""
    lists = [{"list_kind": "user", "list_key": user, "list_id": f"{user}:{night}"} for user in users]
    store.put(PUBLISHED_TOPK, [filled(PUBLISHED_TOPK, row) for row in lists], {})
    said = {"night": f"{night}", "als_model": als, "ranker_model": f"{als}-ranker", "changed": len(users)}
    store._say(PUBLISHED_TOPK, said)


def trained(store: Store, as_of: dt.date, name: str) -> None:
    """What a training leaves behind, as little of it as a night asks for."""
    for table, model in ((ALS_ITEM_FACTORS, name), (RANKER_MODELS, f"{name}-ranker")):
        where: dict[str, dt.date | str] = {"as_of_date": as_of, "model_id": model}
        store.put(table, [where], where)


def test_who_is_served_is_known_after_somebody_was_forgotten(config: Config, tmp_path: Path) -> None:
    """One commit of the log is left: publication and way back stand in it, whatever commits followed them."""
    warehouse = config.paths.warehouse
    created(warehouse, PUBLISHED_TOPK, ALS_ITEM_FACTORS, RANKER_MODELS, NIGHT_MODELS)
    with Store(NO_SPARK, warehouse, "first") as store:
        trained(store, dt.date(2026, 2, 27), "als-1")
        trained(store, N3, "als-4")
        publish(store, N2, "als-1", "a", "b", "d")
        publish(store, N4, "als-4", "a", "b", "d")
        back = roll_back(store, 30, N2)
    assert back is not None and served(warehouse) == back
    target = DeltaTable(location(warehouse, PUBLISHED_TOPK))
    target.alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})
    exports = Path(config.paths.exports) / PUBLISHED_TOPK.name
    (exports / f"version={back.version:08d}").mkdir(parents=True)

    assert forget.forget(config, tmp_path, "d", N5)["table warehouse/published_topk"] == 1
    now = served(warehouse)
    assert now is not None and now.is_rewritten
    assert (now.night, now.als_model, now.ranker_model, now.instead_of) == (N2, "als-1", "als-1-ranker", N4)
    assert now.written == back.written and [each.night for each in kept(warehouse, 30)] == [N2]
    assert models.is_left_behind(warehouse, N4) and not is_quiet(warehouse, now.version - 1)
    with Night(NO_SPARK, config, N1) as earlier:
        published_topk.run(earlier)
        assert earlier._said == [f"Readers keep the lists of {N2}: {N1}, an earlier night, is not published."]

    # No list of b is left, only an earlier version names them; the way back stays known behind a later night.
    with Store(NO_SPARK, warehouse, "second") as store:
        assert models.pinned(store, config, N4, None, None).items() >= OLD.items()
        publish(store, N5, "als-1", "a")
    with pytest.raises(UsageError, match="run `nightrec export` first"):
        forget.forget(config, tmp_path, "b", N5)
    (exports / f"version={version(warehouse, PUBLISHED_TOPK):08d}").mkdir()
    assert forget.forget(config, tmp_path, "b", N5)["table warehouse/published_topk"] == 0
    now = served(warehouse)
    assert now is not None and (now.night, now.als_model, now.changed, now.instead_of) == (N5, "als-1", 1, None)
    assert models.champions(warehouse, N6)[-1]["barred"] == ["als-4", "als-4-ranker"]

    # Once more by rekey, which takes nobody out; one can go back to a night before it from one behind it.
    rekey.rekey(config)
    assert max(exports.glob("version=*")).name == f"version={version(warehouse, PUBLISHED_TOPK):08d}"
    again = served(warehouse)
    assert again is not None and again == now and models.is_left_behind(warehouse, N4)
    with Store(NO_SPARK, warehouse, "third") as store:
        publish(store, N6, "als-1", "a")
        assert [each.night for each in kept(warehouse, 30)] == [N6, N5]
        (exports / f"version={version(warehouse, PUBLISHED_TOPK):08d}").mkdir()
    rekey.rekey(config)
    now = served(warehouse)
    assert now is not None and (now.night, now.changed, now.is_rewritten) == (N6, 1, True)
    assert max(exports.glob("version=*")).name == f"version={version(warehouse, PUBLISHED_TOPK):08d}"
    assert models.is_left_behind(warehouse, N4) and arrow(warehouse, PUBLISHED_TOPK).num_rows == 1


ME, OTHER = "canary-7e3f", "other-9"
BOM = b"\xef\xbb\xbf"


def cleared(file: Path, content: bytes, user: str = ME) -> tuple[bytes, int]:
    """What is left of a raw file, plain and packed alike, and how many lines went or changed."""
    found = []
    forms = [(file, False), (file.with_name(f"{file.name}.gz"), True)]
    for path, packed in forms[: 1 if file.suffix == ".repair" else 2]:
        path.write_bytes(gzip.compress(content) if packed else content)
        temporary = path.with_name(f".forget-{path.name}")
        count = without(path, temporary, Person((user,)))
        assert temporary.exists() == bool(count)
        left = temporary.read_bytes() if count else path.read_bytes()
        found.append((gzip.decompress(left) if packed else left, count))
        temporary.unlink(missing_ok=True)
    assert found[0] == found[-1]
    return found[0]


def line(user: object, **more: object) -> bytes:
    return json.dumps({"user_id": user, "item_id": "i", **more}).encode()


@pytest.mark.parametrize("user", [ME, "5"])
@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_lines_end_where_cleaning_ends_them(tmp_path: Path, end: bytes, user: str) -> None:
    """With a short id too, which is found in the user_id alone."""
    lines = [line(user), line(OTHER), line(user, text="x"), line("third")]
    left = line(OTHER) + end + line("third") + end
    assert cleared(tmp_path / "a.jsonl", end.join(lines) + end, user) == (left, 2)
    assert cleared(tmp_path / "b.jsonl", end.join(lines), user) == (left.removesuffix(end), 2)
    told = line(OTHER, text=f"for {ME}")
    gone = told.replace(ME.encode(), b"(forgotten)")
    assert cleared(tmp_path / "c.jsonl", told + end + line("third") + end) == (gone + end + line("third") + end, 1)


def test_a_byte_order_mark_hides_nobody(tmp_path: Path) -> None:
    for user in (ME, "5"):
        content = BOM + line(user) + b"\n" + line(OTHER) + b"\n"
        assert cleared(tmp_path / "a.jsonl", content, user) == (line(OTHER) + b"\n", 1)
        for header in (b"user_id,item_id\n", b'"user_id","item_id"\n', b"\nuser_id,item_id\n"):
            rows = BOM + header + f"{user},i\n{OTHER},i\n".encode()
            assert cleared(tmp_path / "a.csv", rows, user) == (BOM + header + f"{OTHER},i\n".encode(), 1)


def test_a_mended_line_is_whose_its_raw_is(tmp_path: Path) -> None:
    def mended(number: int, raw: str) -> bytes:
        return json.dumps({"line_id": f"{number}", "raw": raw}, ensure_ascii=False).encode() + b"\n"

    for user in (ME, "5"):
        others = mended(2, line(OTHER).decode()) + mended(3, "broken")
        content = mended(1, line(user).decode()) + others + mended(4, line(int(user) if user == "5" else user).decode())
        assert cleared(tmp_path / "a.repair", content, user)[0] == others
    said = mended(1, line(OTHER, text=f"for {ME}, yes").decode()) + mended(2, f"broken {ME}")
    assert cleared(tmp_path / "b.repair", said) == (
        mended(1, line(OTHER, text="for (forgotten), yes").decode()), 2
    )  # fmt: skip


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_rows_of_csv_of_any_size_and_line_end(tmp_path: Path, end: str) -> None:
    """What stays has the bytes that it had: quotes, ends of lines within cells, and a return alone that ends none."""
    long, quoted = "x" * 200_000, f'{OTHER},"a{end}""b""",""'
    stay = [f"{OTHER},i,{long}", quoted, "third,i,", *([] if end == "\r" else ["fourth,a\rb,"])]
    rows = ["user_id,item_id,text", f"{ME},i,{long}", *stay, f'{ME},"a{end}b",c']
    content = "".join(row + end for row in rows).encode()
    left = "".join(row + end for row in [rows[0], *stay]).encode()
    assert cleared(tmp_path / "a.csv", content) == (left, 2)
    short = content.replace(ME.encode(), b"5")
    assert cleared(tmp_path / "b.csv", short, "5") == (left, 2)
    told = f"user_id,item_id,text{end}{OTHER},{ME},{long} {ME}{end}".encode()
    assert cleared(tmp_path / "c.csv", told) == (
        f"user_id,item_id,text{end}{OTHER},{ME},{long} (forgotten)\n".encode(), 1
    )  # fmt: skip


def test_a_name_that_stands_there_twice_hides_nobody(tmp_path: Path) -> None:
    twice = [f'{{"user_id": "{ME}", "user_id": "{OTHER}"}}', f'{{"user_id": "{OTHER}", "user_id": "{ME}"}}']
    assert cleared(tmp_path / "a.jsonl", "\n".join(twice).encode()) == (b"", 2)
    assert cleared(tmp_path / "b.jsonl", b'{"user_id": 5, "user_id": 6}\n', "5") == (b"", 1)
    text = f'{{"user_id": "{OTHER}", "text": "for {ME}", "text": "x", "item_id": "i"}}\n'
    assert cleared(tmp_path / "c.jsonl", text.encode()) == (
        f'{{"user_id": "{OTHER}", "text": "x", "item_id": "i"}}\n'.encode(), 1
    )  # fmt: skip
    nested = f'{{"user_id": "{OTHER}", "context": {{"user_id": "5"}}, "text": "\\ud800"}}\n'.encode()
    assert cleared(tmp_path / "d.jsonl", nested, "5") == (nested, 0)


def test_a_file_of_twelve_byte_times_can_be_cleaned_afterwards(tmp_path: Path) -> None:
    """Cleaning refuses nanoseconds."""
    times = pa.array([dt.datetime(2026, 3, 10), dt.datetime(2026, 3, 11, 10, 0, 0, 123456)], pa.timestamp("us"))
    rows = pa.table({"user_id": pa.array([ME, OTHER]), "event_ts": times})
    file, temporary = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(rows, file, use_deprecated_int96_timestamps=True)
    assert pq.read_schema(file).field("event_ts").type == pa.timestamp("ns")
    assert without(file, temporary, Person((ME,))) == 1
    found = pq.read_table(temporary)
    assert found.schema.field("event_ts").type == pa.timestamp("us", "UTC"), "a moment, as Spark took it for before"
    assert found.cast(rows.schema).equals(rows.slice(1, 1))


def test_a_user_whose_id_an_item_has_can_be_certified(config: Config, tmp_path: Path) -> None:
    """What names the item stays, everywhere; what else says the id is still found."""
    day = Path(config.paths.raw) / "events/ingest_date=2026-03-10"
    day.mkdir(parents=True)
    item, both = {"user_id": OTHER, "item_id": ME}, {"user_id": ME, "item_id": ME}
    (day / "a.jsonl").write_bytes(b"".join(json.dumps(row).encode() + b"\r\n" for row in (item, both)))
    (day / "b.csv.gz").write_bytes(gzip.compress(f"user_id,item_id,text\n{OTHER},{ME},x\n{ME},{ME},y\n".encode()))
    pq.write_table(pa.Table.from_pylist([item, both]), day / "c.parquet", compression="none")
    mended = [{"line_id": str(at), "raw": json.dumps(row)} for at, row in enumerate((item, both))]
    (day / "d.repair").write_text("".join(json.dumps(line) + "\n" for line in mended))
    created(config.paths.warehouse, PUBLISHED_TOPK)
    with Store(NO_SPARK, config.paths.warehouse, "first") as store:
        lists = [{"list_kind": kind, "list_key": ME, "list_id": kind} for kind in ("user", "item")]
        named = [filled(PUBLISHED_TOPK, row) | {"items": [{"item_id": ME}]} for row in lists]
        store.put(PUBLISHED_TOPK, named, {})
    exported = Path(config.paths.exports) / "published_topk/version=00000001/jsonl/part-0.json"
    exported.parent.mkdir(parents=True)
    exported.write_text("".join(json.dumps({**row, "change": "upsert", "items": []}) + "\n" for row in lists))
    (exported.parent.parent / "manifest.json").write_text('{"files": {}}')

    counts = forget.forget(config, tmp_path, ME, N5)
    assert (counts["raw events"], counts["exported files"], counts[forget.DONE]) == (4, 1, 0)
    assert arrow(config.paths.warehouse, PUBLISHED_TOPK)["list_kind"].to_pylist() == ["item"]
    assert ME in exported.read_text() and ME in (day / "a.jsonl").read_text()

    own = [Path(config.paths.raw), exported.parent, Path(location(config.paths.warehouse, PUBLISHED_TOPK))]
    person = Person((ME,))
    for name, content in (
        ("e.jsonl", json.dumps(both)), ("e.jsonl", json.dumps({"item_id": ME, "value": ME})), ("e.jsonl", f"{ME} x"),
        ("e.jsonl", f'{{"item_id": "i", "text": "{ME}", "text": ""}}'), ("e.txt", json.dumps(item)),
        ("e.repair", json.dumps(mended[1])), ("e.csv", f"user_id,item_id\n{ME},{ME}\n"),
        ("e.csv", f"item_id\na,{ME}\n"), ("e.json", json.dumps(lists[0])), (f"{ME}.csv", ""),
    ):  # fmt: skip
        file = day / name
        file.write_text(content)
        assert forget.search([tmp_path], person, own) == [file], content
        file.unlink()
    for said in ({"user_id": [ME]}, {"item_id": [ME], "text": [f"for {ME}"]}, {ME: [1]}):
        pq.write_table(pa.table(said), day / "e.parquet")
        assert forget.search([tmp_path], person, own) == [day / "e.parquet"], said
    (day / "e.parquet").unlink()
    (tmp_path / "e.jsonl").write_text(json.dumps(item))
    assert forget.search([tmp_path], person, own) == [tmp_path / "e.jsonl"], "none of the deployment's"
