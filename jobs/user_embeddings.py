"""user_embeddings: one row per user and night: recent items' vectors mixed with the vector of the user's own text.

spark-submit jobs/user_embeddings.py --config nightrec.toml --date 2026-01-31
"""

from __future__ import annotations

from nightrec.embeddings.encode import Settings, count_texts
from nightrec.embeddings.users import held_texts, newest_date, text_vectors, user_embeddings
from nightrec.night import Night, main
from nightrec.store import partitions
from nightrec.tables import ITEM_EMBEDDINGS, ITEM_PROFILES, USER_EMBEDDINGS, USER_PROFILES


def run(night: Night) -> None:
    """Encode the night's new user texts and mix them with the vectors of recent items."""
    encoder = night.config.encoder
    settings = Settings(encoder.path, encoder.revision, encoder.batch_tokens, encoder.max_tokens)
    profiles = night.read(USER_PROFILES)
    before = newest_date(partitions(night.store.warehouse, USER_EMBEDDINGS), encoder.id, night.date)
    held = held_texts(night.read(USER_EMBEDDINGS, {"run_date": before, "encoder": encoder.id}))
    new, reused = count_texts(profiles, held)
    night.book("reused", reused, "text")
    night.book("encoded", new, "text")
    vectors = user_embeddings(
        profiles,
        night.read(ITEM_PROFILES),
        night.read(ITEM_EMBEDDINGS, {"encoder": encoder.id}),
        text_vectors(profiles, held, new, settings),
        run_date=night.date,
        encoder=encoder.id,
        text_share=encoder.user_text_share,
    )
    night.replace(USER_EMBEDDINGS, vectors, {"run_date": night.date, "encoder": encoder.id})


if __name__ == "__main__":
    main(run)
