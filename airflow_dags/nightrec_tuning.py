"""### Better settings

Once a week, as of the day that has just ended: search for settings whose lists would have been worth more over the last
windows, by `nightrec tune`, in a warehouse of its own. What wins is written to tuned.toml beside the deployment's TOML;
nights use it once their DAG's parameter `config` (or NIGHTREC_CONFIG) names that file. A retry goes on with the search.
"""

# (Airflow looks for DAGs only in files that hold both of these words.)
from nightrec_factory import deployment_dag, minutes, tuning_task

with deployment_dag("nightrec_tuning", cron="0 6 * * 0", doc=__doc__, more={"minutes": minutes(240)}) as dag:
    tuning_task()
