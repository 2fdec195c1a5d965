"""als_item_factors: everything that had arrived by the date, factorized; one row per item, kept under a model id.

spark-submit jobs/als_item_factors.py --config var/demo/nightrec.toml --date 1998-03-01
"""

from __future__ import annotations

from nightrec.als.factorize import item_factors
from nightrec.models import als_model_id
from nightrec.night import Night, main
from nightrec.tables import ALS_ITEM_FACTORS


def run(night: Night) -> None:
    """Train as of the night's date and replace that model's partition."""
    model_id = als_model_id(night.date, night.config)
    frame = item_factors(night.events(), night.config.als, night.date, model_id)
    night.replace(ALS_ITEM_FACTORS, frame, {"as_of_date": night.date, "model_id": model_id})


if __name__ == "__main__":
    main(run)
