"""item_embeddings: one row per item text and encoder; only texts that were never encoded are.

spark-submit jobs/item_embeddings.py --config nightrec.toml --date 2026-01-31
"""

from __future__ import annotations

from nightrec.embeddings.encode import Settings, count_texts
from nightrec.embeddings.items import item_embeddings
from nightrec.night import Night, main
from nightrec.tables import ITEM_EMBEDDINGS, ITEM_PROFILES


def run(night: Night) -> None:
    """Encode the night's new item texts; where there are none, nothing is written and no model is loaded."""
    encoder = night.config.encoder
    settings = Settings(encoder.path, encoder.revision, encoder.batch_tokens, encoder.max_tokens)
    # An id says nothing: items of which no more is known have no text.
    profiles = night.read(ITEM_PROFILES).where("text != item_id")
    held = night.read(ITEM_EMBEDDINGS, {"encoder": encoder.id})
    new, reused = count_texts(profiles, held)
    night.book("reused", reused, "text")
    if new:
        commit = night.store.append(ITEM_EMBEDDINGS, item_embeddings(profiles, held, new, encoder.id, settings))
        night.book("written", commit.rows, ITEM_EMBEDDINGS.name)
        night.book("encoded", commit.rows, "text")


if __name__ == "__main__":
    main(run)
