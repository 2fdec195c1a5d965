"""### Tonight's lists

raw events -> clean_events -> profiles -> factors, embeddings -> candidates -> ranked_topk -> audit -> published_topk

Every night, for the day that has just ended: clean what is new, rank, audit, publish in one commit, export the changes.
A refused audit (exit code 4) stops the night and leaves yesterday's lists served. Any task may be cleared and run
again: it replaces what it wrote.
"""

# (Airflow looks for DAGs only in files that hold both of these words.)
from nightrec.pipeline import NIGHT
from nightrec_factory import deployment_dag, flow, nightly_tasks

with deployment_dag("nightrec_daily", cron="0 2 * * *", doc=f"{__doc__}\n{flow(NIGHT)}") as dag:
    nightly_tasks(NIGHT)
