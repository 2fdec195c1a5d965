"""export: the changes of published_topk since the last export, as files under paths.exports.

spark-submit jobs/export.py --config nightrec.toml --date 2026-03-10
"""

from nightrec.night import Night, main
from nightrec.past.undo import is_quiet
from nightrec.serving.export import changes, everything, export, exported_version, nothing_new, prepared
from nightrec.tables import PUBLISHED_TOPK


def run(night: Night) -> None:
    latest = night.store.seen(PUBLISHED_TOPK).version
    folder = prepared(night.spark, f"{night.config.paths.exports}/{PUBLISHED_TOPK.name}")
    since = exported_version(night.spark, folder)
    if nothing_new(latest, since, folder) or (since and is_quiet(night.store.warehouse, since)):
        night.book("exported", 0, "nothing new")
        return
    if since:
        frame = changes(night.store.changes(PUBLISHED_TOPK, since), latest)
    else:
        frame = everything(night.store.read(PUBLISHED_TOPK, version=latest))
    for change, rows in export(frame, folder, since + 1, latest, night.config.export.formats).items():
        night.book("exported", rows, change)


if __name__ == "__main__":
    main(run)
