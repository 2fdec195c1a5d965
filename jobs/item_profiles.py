"""item_profiles: one row per item of the catalogue or of the events, as of the night.

spark-submit jobs/item_profiles.py --config nightrec.toml --date 2026-01-31
"""

from __future__ import annotations

import pyarrow.compute as pc

from nightrec import raw
from nightrec.night import Night, main
from nightrec.profiles.items import item_profiles
from nightrec.store import arrow
from nightrec.tables import ITEM_PROFILES


def run(night: Night) -> None:
    """Describe every item; book the catalogue's lines that are none, and items used but missing from it."""
    with raw.readable():
        catalogue = raw.items(night.spark, night.config.paths.raw, night.date)
        listed = catalogue.rows if catalogue else None
        night.replace(
            ITEM_PROFILES, item_profiles(listed, night.events(), night.date, night.config.profiles.recent)
        )
    for reason, lines in (catalogue.rejected() if catalogue else {}).items():
        night.book("rejected", lines, reason)
    # Counted from the one column just written: a second Spark pass would run the whole stage again.
    written = arrow(night.store.warehouse, ITEM_PROFILES, {"run_date": night.date}, ["in_catalogue"])
    if unknown := pc.sum(pc.invert(written["in_catalogue"])).as_py():
        night.book("unknown_item", unknown, "not in the catalogue")


if __name__ == "__main__":
    main(run)
