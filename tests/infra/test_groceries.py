"""A grocer's tills as a raw root: three lines of receipts, two products, one household that said who it is."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nightrec import raw

SCRIPT = Path(__file__).resolve().parents[2] / "infra/quality/groceries.py"


def test_a_receipt_is_an_event_of_its_day(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "raw"
    source.mkdir()
    times = [dt.datetime(2017, 1, 1, 23, 59, 59), dt.datetime(2017, 1, 2), dt.datetime(2017, 1, 2, 8, 30)]
    sold = {
        "household_id": [7, 7, 900], "product_id": [25671, 1, 25671], "quantity": [2, 1, 0],
        "transaction_timestamp": pa.array(times, pa.timestamp("ns")), "sales_value": [1.5, 2.0, 0.0],
    }  # fmt: skip
    products = {
        "product_id": [25671, 1], "manufacturer_id": [2, 3], "department": ["GROCERY", "MISC"], "brand": ["Own", None],
        "product_category": ["FRZN ICE", None], "product_type": ["ICE", None], "package_size": ["22 LB", None],
    }  # fmt: skip
    pq.write_table(pa.table(sold), source / "transactions.parquet")
    pq.write_table(pa.table(products), source / "products.parquet")
    pq.write_table(pa.table({"household_id": [7], "age": ["65+"], "income": [None]}), source / "demographics.parquet")
    for _ in range(2):  # the second time over the first
        subprocess.run([sys.executable, SCRIPT, "--source", source, "--out", out], check=True, capture_output=True)

    assert raw.ingest_dates(str(out), "events") == [dt.date(2017, 1, 1), dt.date(2017, 1, 2)]
    rows = pq.read_table(out / "events/ingest_date=2017-01-02").to_pylist()
    assert [(row["user_id"], row["item_id"], row["event_type"], row["event_ts"], row["value"]) for row in rows] == [
        ("7", "1", "purchase", "2017-01-02T00:00:00Z", 1), ("900", "25671", "purchase", "2017-01-02T08:30:00Z", 0),
    ]  # fmt: skip
    items, users = (
        [json.loads(line) for line in (out / kind / "ingest_date=2017-01-01/part-0.jsonl").read_text().splitlines()]
        for kind in ("items", "users")
    )
    assert items == [
        {"item_id": "25671", "title": "ICE", "categories": ["GROCERY", "FRZN ICE"],
         "attributes": {"brand": "Own", "manufacturer": "2", "size": "22 LB"}},
        {"item_id": "1", "title": "Unknown", "categories": ["MISC"], "attributes": {"manufacturer": "3"}},
    ]  # fmt: skip
    assert users == [{"user_id": "7", "attributes": {"age": "65+"}}]
