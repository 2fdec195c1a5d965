"""An archive of Spark's and Delta's classes beside pyspark: each JVM maps it, and does not load and verify them again.

    .venv/bin/python infra/setup/shared_classes.py LOG4J2_PROPERTIES

Java's application class-data sharing. A JVM that opens a session and merges a thousand rows into a table took 23 core
seconds and 18 s without it, 16 core seconds and 12 s with it (2 cores, first compiler alone; 29 and 25 core seconds
with both).
Java takes an archive only while the class path is what it was, with nothing in pyspark's conf folder; any other JVM
starts as before. So Spark's log settings, given here, do not lie in conf but in a jar among pyspark's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyspark

from nightrec.session import class_archive

HOME, ARCHIVE = Path(pyspark.__file__).parent, class_archive()

# What nights do, in small: the classes that this loads are the archive's.
PROGRAM = """
import sys
from delta.tables import DeltaTable
from pyspark import SparkContext
from pyspark.sql import functions as F
from nightrec.config import Spark
from nightrec.session import session

spark = session(Spark(master="local[2]", partitions=2), "class archive")
folder = sys.argv[1]
rows = spark.range(1000).selectExpr("id", "id % 7 AS k", "CAST(id AS string) AS s", "CAST(id AS timestamp) AS t")
rows.write.json(f"{folder}/raw")
raw = spark.read.schema(rows.schema).json(f"{folder}/raw").cache()
for _ in range(2):
    raw.write.format("delta").mode("overwrite").partitionBy("k").save(f"{folder}/table")
stored = spark.read.format("delta").load(f"{folder}/table")
ranked = stored.selectExpr("*", "row_number() OVER (PARTITION BY k ORDER BY s DESC) AS n", "explode(array(1, 2)) AS e")
counted = raw.groupBy("k").agg(F.collect_list("id"), F.count_distinct("s"), F.max_by("id", "t"))
joined = ranked.where("n < 5").join(counted, "k", "left").orderBy("n").select("id", "k", "s", "t")
joined.mapInArrow(lambda batches: batches, joined.schema).toArrow()
(DeltaTable.forPath(spark, f"{folder}/table").alias("old").merge(raw.alias("new"), "old.id = new.id AND old.k = new.k")
    .whenMatchedUpdateAll().whenNotMatchedInsertAll().whenNotMatchedBySourceDelete().execute())
DeltaTable.forPath(spark, f"{folder}/table").history().toArrow()
spark.stop()
# The archive is written as the JVM ends by itself; left running, it is killed with this process.
java = SparkContext._gateway.proc
java.stdin.close()
java.wait()
"""


def main() -> None:
    """Move the log settings into their jar, run the program once, and keep what it loaded; a failure keeps nothing."""
    settings = Path(sys.argv[1])
    (HOME / "conf" / settings.name).unlink(missing_ok=True)
    ARCHIVE.unlink(missing_ok=True)
    with zipfile.ZipFile(HOME / "jars/nightrec-log-settings.jar", "w") as jar:
        jar.write(settings, settings.name)
    with tempfile.TemporaryDirectory(dir=HOME, prefix=".classes-") as work:
        made = Path(work) / ARCHIVE.name
        answer = subprocess.run(
            [sys.executable, "-c", PROGRAM, work],
            env={k: v for k, v in os.environ.items() if not k.startswith(("SPARK", "PYSPARK"))}
            | {"SPARK_SUBMIT_OPTS": f"-XX:ArchiveClassesAtExit={made} -Xlog:disable", "SPARK_LOCAL_IP": "127.0.0.1"},
            cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode or not made.exists():
            sys.exit(f"{answer.stderr[-3000:]}\nset-up: Spark's classes could not be archived (the cause is above)")
        made.rename(ARCHIVE)


if __name__ == "__main__":
    main()
