"""One whole night on a standalone cluster of separate processes: the same lists as in one process.

A master and two one-core workers on this machine, REST submission off, against `local[2]`: one `nightrec run` each on
the same raw log, from nothing to published lists. Every table that the night writes is compared row by row, keys first.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import pyarrow as pa
from measure import Report, seconds

CHECKOUT = Path(__file__).resolve().parents[2]
# In flow order: the first that differs is where to look.
COMPARED = (
    "clean_events", "rejected_events", "item_profiles", "user_profiles", "als_item_factors", "als_user_factors",
    "item_embeddings", "user_embeddings", "candidates", "ranker_examples", "ranked_topk", "published_topk", "outcomes",
)  # fmt: skip


def main() -> None:
    sys.path.insert(0, str(CHECKOUT / "tests"))
    from spark_commands import environment, standalone_cluster
    from synthetic import deployment
    import shutil, time
    root = Path(sys.argv[1]); shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (root/"alone").mkdir(); (root/"cluster").mkdir(); (root/"daemons").mkdir()
    toml, shop = deployment(root / "alone")
    shutil.copytree(root/"alone/raw", root/"cluster/raw")
    def night(folder, **options):
        t = time.time()
        ended = subprocess.run(["nightrec", "run", "--config", str(folder/"nightrec.toml"), "--date", str(shop.last)], env=environment(), cwd=folder, capture_output=True, text=True)
        print(folder.name, ended.returncode, time.time()-t); print(ended.stdout[-2500:]); print(ended.stderr[-1500:], flush=True)
    night(root/"alone")
    with standalone_cluster(root/"daemons") as running:
        text = toml.read_text().replace('local[2]', running.master) + '\n[spark.options]\n"spark.executor.memory" = "1g"\n"spark.executor.cores" = "1"\n'
        (root/"cluster/nightrec.toml").write_text(text)
        night(root/"cluster")


if __name__ == "__main__":
    main()
