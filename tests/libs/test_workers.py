"""What the workers of a whole night are forked with."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def test_preloaded_libraries_stay_out_of_garbage_collection(spark: Any) -> None:
    def look(batches: Any) -> Any:
        import gc
        import sys

        for _ in batches:
            yield pa.record_batch({"frozen": [gc.get_freeze_count()], "torch": ["torch" in sys.modules]})

    seen = spark.range(1).mapInArrow(look, "frozen long, torch boolean").first()
    # torch, transformers and numba are some 800,000 objects
    assert seen.torch and seen.frozen > 300_000, seen
