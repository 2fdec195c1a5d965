"""### New models

past cuts: profiles -> factors and embeddings -> candidates; then ranker_examples -> ranker_model -> als_item_factors

Once a week, as of the day that has just ended: rebuild what was known at past cuts, learn from what users did after
them, then factorize everything anew. The nights that follow use the new models. How many cuts says the deployment's
`ranker` section; how far apart they lie, that section or the log.
"""

# (Airflow looks for DAGs only in files that hold both of these words.)
from nightrec.pipeline import training
from nightrec_factory import deployment_dag, flow, past_cuts, training_tasks

STEPS = training(past_cuts())
STAGES = tuple(dict.fromkeys(step.stage for step in STEPS))

with deployment_dag("nightrec_training", cron="0 4 * * 0", doc=f"{__doc__}\n{flow(STAGES)}", fixed_config=True) as dag:
    training_tasks(STEPS)
