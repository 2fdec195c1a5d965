"""A deployment from a log of unknown shape: every guess below is known from how the file was made."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest

from nightrec import config
from nightrec.errors import BadInput, UsageError
from nightrec.init import Deployment, create, summary
from nightrec.init.look import Look
from nightrec.init.words import event_type

RETAIL = Path(__file__).resolve().parents[4] / "shared/data/online_retail/raw"


def epoch(day: str, hour: int = 12) -> int:
    return int(dt.datetime.fromisoformat(f"{day}T{hour:02}:00:00+00:00").timestamp())


def written(made: Deployment) -> dict[str, list[dict[str, object]]]:
    """Rows of the converted raw root by ingest date, in file order."""
    days: dict[str, list[dict[str, object]]] = {}
    for file in sorted((made.raw / "events").glob("*/*.parquet")):
        days[file.parent.name.removeprefix("ingest_date=")] = pq.ParquetFile(file).read().to_pylist()
    return days


def movielens(path: Path) -> Path:
    """u.data's shape: no header, tabs, user, item, rating, epoch seconds; a row per user, item and day."""
    rows = [
        (str(900 + user), str(10 + item), str(1 + (user + item) % 5), str(epoch(f"2026-01-{day:02}", item)))
        for day in range(1, 11)
        for user in range(3)
        for item in range(day, day + 4)
    ]
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_headerless_movielens_is_guessed_right(tmp_path: Path) -> None:
    made = create(movielens(tmp_path / "u.data"), tmp_path / "out")
    assert made.guess is not None
    assert made.guess.columns == {"user": "column_1", "item": "column_2", "time": "column_4", "value": "column_3"}
    assert (made.guess.time_format, made.guess.default_type) == ("epoch seconds", "rating")
    assert (made.figures.rows, made.figures.users, made.figures.items) == (120, 3, 13)
    # items d..d+3 on day d: on each later day 3 of 4 pairs were met the day before
    assert made.figures.repeat_share == pytest.approx(0.75)
    assert made.night == dt.date(2026, 1, 10)
    first = written(made)["2026-01-01"][0]
    assert first == {
        "user_id": "900",
        "item_id": "11",
        "event_type": "rating",
        "event_ts": "2026-01-01T01:00:00.000000Z",
        "value": 2.0,
    }
    settings = config.load(made.config)
    assert settings.candidates.repeats_allowed and settings.ranker.horizon_days is None
    assert settings.paths.raw == str(made.raw.resolve())
    text = summary(made)
    assert "the first of two columns of ids" in text and "75% of the later events are repeats" in text
    assert f"nightrec run --config {made.config} --date 2026-01-10" in text


def test_csv_with_a_shops_own_names_and_words(tmp_path: Path) -> None:
    ms = epoch("2026-02-01") * 1000
    rows = [
        "timestamp,visitorid,event,itemid,transactionid",
        f"{ms},257597,view,355908,",
        # the last millisecond of the day stays on it
        f"{epoch('2026-02-01', 0) * 1000 + 86_399_999},9007199254740993,addtocart,248676,",
        # and the first of the next does not
        f"{epoch('2026-02-02', 0) * 1000},257597,transaction,355908,4000",
        # no user; an event type without a meaning is kept as it came
        f"{epoch('2026-02-02') * 1000},,view,7,",
        f"{epoch('2026-02-02') * 1000},1,teleport,7,",
        # a time that is none stands in the last folder, as it came
        "yesterday,1,view,7,",
    ]
    file = tmp_path / "events.csv"
    file.write_text("\n".join([rows[0], *rows[1:2] * 200, *rows[2:]]) + "\n", encoding="utf-8")
    made = create(file, tmp_path / "out")
    assert made.guess is not None
    assert made.guess.columns == {"user": "visitorid", "item": "itemid", "time": "timestamp", "type": "event"}
    assert made.guess.time_format == "epoch milliseconds"
    days = written(made)
    assert [len(rows) for rows in days.values()] == [201, 4]
    assert days["2026-02-01"][-1]["user_id"] == "9007199254740993"
    assert days["2026-02-01"][-1]["event_type"] == "like"
    assert [row["event_type"] for row in days["2026-02-02"]] == ["purchase", "view", "teleport", "view"]
    assert days["2026-02-02"][-1]["event_ts"] == "yesterday"
    assert made.figures.incomplete == 2
    text = summary(made)
    assert "left out: transactionid" in text and "teleport (1)" in text and "2 events lack" in text


def test_parquet_with_typed_columns(tmp_path: Path) -> None:
    times = [dt.datetime(2026, 3, day, 23, 59, tzinfo=dt.UTC) for day in (2, 1, 2)]
    table = pa.table(
        {
            # what pandas makes of ids beside a missing one
            "CustomerID": pa.array([17850.0, None, 17851.0]),
            "StockCode": ["85123A", "71053", "日本"],
            "InvoiceDate": pa.array(times),
            "Quantity": pa.array([6, -1, 2]),
            "tags": [["a"], [], None],
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    made = create(tmp_path / "log.parquet", tmp_path / "out")
    days = written(made)
    assert list(days) == ["2026-03-01", "2026-03-02"]
    assert [row["user_id"] for row in days["2026-03-02"]] == ["17850", "17851"]
    assert days["2026-03-02"][1]["item_id"] == "日本"
    assert days["2026-03-01"][0] == {
        "user_id": None,
        "item_id": "71053",
        "event_type": "purchase",
        "event_ts": "2026-03-01T23:59:00.000000Z",
        "value": -1.0,
    }


def test_json_lines_gzip_and_double_colons_and_recbole(tmp_path: Path) -> None:
    events = [{"uid": 2**53 + 1, "sku": "a", "ts": f"2026-01-0{day}T10:00:00+02:00", "n": {"x": 1}} for day in (1, 2)]
    with gzip.open(tmp_path / "log.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(event) for event in events))
    day = written(create(tmp_path / "log.jsonl.gz", tmp_path / "a"))["2026-01-01"][0]
    assert day["user_id"] == str(2**53 + 1) and day["event_ts"] == "2026-01-01T08:00:00.000000Z"
    lines = [f"{user}::{1193 + user}::5::{epoch('2026-01-01')}" for user in range(3)]
    (tmp_path / "ratings.dat").write_text("\n".join(lines), encoding="latin-1")
    made = create(tmp_path / "ratings.dat", tmp_path / "b", {"value": "column_3"})
    assert [row["item_id"] for row in written(made)["2026-01-01"]] == ["1193", "1194", "1195"]
    (tmp_path / "x.inter").write_text(
        f"user_id:token\titem_id:token\ttimestamp:float\n1\t2\t{epoch('2026-01-01')}\n", encoding="utf-8"
    )
    made = create(tmp_path / "x.inter", tmp_path / "c")
    assert made.guess is not None and made.guess.columns["user"] == "user_id:token"


def test_dates_of_a_country(tmp_path: Path) -> None:
    file = tmp_path / "dates.csv"
    # 12/25 can only be month first
    file.write_text("customer,product,date\nu,a,12/25/2025 8:26\nu,b,12/01/2025 8:26\n", encoding="utf-8")
    made = create(file, tmp_path / "out")
    assert list(written(made)) == ["2025-12-01", "2025-12-25"]
    # both readings hold: nobody may guess
    file.write_text("customer,product,date\nu,a,01/02/2025\nu,b,03/04/2025\n", encoding="utf-8")
    with pytest.raises(UsageError, match="alike"):
        create(file, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_till_knows_households(tmp_path: Path) -> None:
    file = tmp_path / "till.csv"
    lines = [f"{n % 5},{n % 4},{n % 7},{n % 3},2026-01-{n + 1:02}T08:00:00" for n in range(20)]
    header = "household_id,store_id,product_id,week,transaction_timestamp"
    file.write_text("\n".join([header, *lines]), encoding="utf-8")
    made = create(file, tmp_path / "out")
    assert made.guess is not None and made.guess.columns["user"] == "household_id"


def test_two_times_are_a_question(tmp_path: Path) -> None:
    file = tmp_path / "two.csv"
    file.write_text(
        "user_id;item_id;created_at;occurred_at\n"
        "1;2;2026-01-01 10:00;2026-01-01 09:00\n1;3;2026-01-02 10:00;2026-01-02 09:00\n",
        encoding="utf-8",
    )
    with pytest.raises(
        UsageError, match=r"'created_at' and 'occurred_at' fit the time equally well.*--time created_at"
    ):
        create(file, tmp_path / "out")
    made = create(file, tmp_path / "out", {"time": "occurred_at"})
    assert written(made)["2026-01-01"][0]["event_ts"] == "2026-01-01T09:00:00.000000Z"
    asked: list[tuple[str, list[str]]] = []

    def choose(role: str, names: list[str]) -> str:
        asked.append((role, names))
        return names[0]

    create(file, tmp_path / "asked", choose=choose)
    assert asked == [("time", ["created_at", "occurred_at"])]
    with pytest.raises(UsageError, match="did you mean created_at"):
        create(file, tmp_path / "out2", {"time": "creatd_at"})


def test_a_date_beside_a_time_is_no_question(tmp_path: Path) -> None:
    file = tmp_path / "two.csv"
    file.write_text("user,item,date,timestamp\n1,2,2026-01-01,2026-01-01 10:00\n", encoding="utf-8")
    made = create(file, tmp_path / "out")
    assert made.guess is not None and made.guess.columns["time"] == "timestamp"


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("empty.csv", b"", BadInput, "is empty"),
        ("blank.csv", b"\n \n", BadInput, "is empty"),
        ("header.csv", b"user,item,time\n", BadInput, "no events"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", BadInput, "binary"),
        ("prose.txt", b"Dear Sir,\nI hold with those who favour fire.\n", BadInput, "not a table"),
        ("cut.parquet", b"PAR1abcdef", BadInput, "Parquet"),
        ("broken.csv.gz", gzip.compress(b"user,item,time\n" * 9, mtime=0)[:-9], BadInput, "cannot be read"),
        ("notime.csv", b"user,item,price\na,b,9.5\n", BadInput, "no column reads as a time"),
        ("three_ids.csv", b"1,2,3,1767225600\n4,5,6,1767225601\n", UsageError, "fit the user equally well"),
        ("broken.jsonl", b'{"user_id": \n', BadInput, "not JSON lines"),
    ],
)
def test_what_is_no_table_of_events(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        create(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out/nightrec.toml").exists()


def test_a_missing_source_and_a_folder_that_is_no_raw_root(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        create(tmp_path / "none.csv", tmp_path / "out")
    with pytest.raises(UsageError, match="no raw root"):
        create(tmp_path, tmp_path / "out")


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    made = create(movielens(tmp_path / "u.data"), tmp_path / "out")
    made.config.write_text("# mine\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--force"):
        create(tmp_path / "u.data", tmp_path / "out")
    assert made.config.read_text(encoding="utf-8") == "# mine\n"
    assert "mine" not in create(tmp_path / "u.data", tmp_path / "out", force=True).config.read_text(encoding="utf-8")
    # a raw folder that a person put there stays, force or not
    own = tmp_path / "own/raw"
    own.mkdir(parents=True)
    with pytest.raises(UsageError, match="stays"):
        create(tmp_path / "u.data", tmp_path / "own", force=True)
    assert own.is_dir()


def test_a_raw_root_is_read_where_it_lies(tmp_path: Path) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        folder = tmp_path / f"raw/events/ingest_date={day}"
        folder.mkdir(parents=True)
        event = {"user_id": "u", "item_id": "i", "event_type": "view", "event_ts": f"{day}T10:00:00Z"}
        (folder / "a.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")
    # a second file with a broken line: named, not fatal
    (folder / "b.jsonl").write_text("{broken\n", encoding="utf-8")
    made = create(tmp_path / "raw", tmp_path / "out")
    assert made.guess is None and made.night == dt.date(2026, 1, 2)
    assert config.load(made.config).paths.raw == str(tmp_path / "raw")
    assert (made.figures.rows, made.figures.repeat_share) == (2, 1.0)
    assert "1 files could not be read whole" in summary(made)
    # inside its own deployment the path is relative: the folder can be moved
    assert 'raw = "raw"' in create(tmp_path / "raw", tmp_path).config.read_text(encoding="utf-8")


def test_the_busiest_hour_is_said_when_it_makes_a_robot(tmp_path: Path) -> None:
    rows = [f"u{n % 2},{n},{epoch('2026-01-01') + n}" for n in range(2100)]
    (tmp_path / "x.csv").write_text("user,item,time\n" + "\n".join(rows), encoding="utf-8")
    assert "user u0 has 1,050 events in one hour: a robot" in summary(create(tmp_path / "x.csv", tmp_path / "out"))


def test_figures_do_not_depend_on_batches_and_hold_a_share_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = movielens(tmp_path / "u.data")
    whole = create(file, tmp_path / "a")
    monkeypatch.setattr("nightrec.init.convert.BUCKET_ROWS", 30)
    parts = create(file, tmp_path / "b")
    assert parts.figures == whole.figures and written(parts) == written(whole)
    monkeypatch.setattr("nightrec.init.look.PAIRS_HELD", 60)
    few = create(file, tmp_path / "c").figures
    assert few.one_user_in > 1 and few.users == whole.figures.users


def test_no_events_have_no_figures() -> None:
    figures = Look().figures()
    assert (figures.rows, figures.days, figures.repeat_share, figures.users) == (0, 0, 0.0, 0)


def test_words_of_event_types() -> None:
    known = {"Add_To_Cart": "like", "detail_view": "view", "pv": "view", "BUY": "purchase", "fav": "favourite"}
    assert {word: event_type(word) for word in known} == known
    assert event_type("remove_from_cart") == "remove_from_cart"


@pytest.mark.skipif(not RETAIL.is_dir(), reason="the shop's log is not here")
def test_the_shops_log(tmp_path: Path) -> None:
    made = create(RETAIL, tmp_path)
    assert (made.figures.rows, made.figures.incomplete, made.figures.users) == (541_909, 135_080, 4_372)
    assert made.night == dt.date(2011, 12, 9)
    assert config.load(made.config).candidates.repeats_allowed
    assert pa_dataset.dataset(RETAIL / "events", format="json").files
