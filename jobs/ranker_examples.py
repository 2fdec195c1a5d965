"""ranker_examples: candidates of past cuts with what the users then did. Grain: (cut_date, user_id, item_id).

    spark-submit jobs/ranker_examples.py --config nightrec.toml --date 2026-03-10
"""

from datetime import timedelta

from nightrec.night import Night, main
from nightrec.pipeline import SAME_DATE
from nightrec.ranker.examples import acted, examples, missed, positives, union
from nightrec.tables import CANDIDATES, RANKER_EXAMPLES, USER_PROFILES


def run(night: Night) -> None:
    """Label the candidates of every training cut of the date, a fold each."""
    settings, cuts = night.config.ranker, night.training_cuts()
    done, frames = [], []
    for fold, cut in enumerate(cuts):
        past = night.at(cut, SAME_DATE)
        candidates = past.read(CANDIDATES, {"run_date": cut, "als_model": past.als_model})
        later = night.events(until=cut + timedelta(days=settings.horizon), after=cut)
        done.append(acted(past.read(USER_PROFILES), later))
        frames.append(examples(
            candidates, done[-1], as_of=night.date, cut=cut, seed=settings.seed,
            fold=fold if len(cuts) > 1 else None, negatives_share=settings.negatives_share,
        ))
    night.replace(RANKER_EXAMPLES, union(frames), {"as_of_date": night.date})
    if len(cuts) < settings.past_cuts:
        night.book("cut", len(cuts), f"of {settings.past_cuts}: the log reaches no further back")
    found = sum(positives(night.store.read(RANKER_EXAMPLES, {"as_of_date": night.date})).values())
    night.book("positive", found, "acted on after the cut")
    night.book("missed", missed(done, found), "acted on, but not a candidate")


if __name__ == "__main__":
    main(run)
