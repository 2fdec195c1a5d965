"""user_profiles: one row per user of the snapshot or of the events, as of the night.

spark-submit jobs/user_profiles.py --config nightrec.toml --date 2026-01-31
"""

from __future__ import annotations

from nightrec import raw
from nightrec.night import Night, main
from nightrec.privacy import pseudonyms
from nightrec.profiles.users import user_profiles
from nightrec.tables import ITEM_PROFILES, USER_PROFILES


def run(night: Night) -> None:
    """Describe every user and book the lines of the snapshot that are no user."""
    settings = night.config.profiles
    with raw.readable():
        ids = pseudonyms.of(night.config.privacy)
        snapshot = raw.users(night.spark, night.config.paths.raw, night.date, ids)
        profiles = user_profiles(
            snapshot.rows if snapshot else None,
            night.events(),
            night.read(ITEM_PROFILES),
            night.date,
            recent_days=settings.recent,
            recent_items=settings.recent_items,
            segment_attribute=settings.segment_attribute,
            eligible_days=settings.eligible_days,
        )
        night.replace(USER_PROFILES, profiles)
    for reason, lines in (snapshot.rejected() if snapshot else {}).items():
        night.book("rejected", lines, reason)


if __name__ == "__main__":
    main(run)
