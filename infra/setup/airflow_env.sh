#!/usr/bin/env bash
# Airflow's environment: .venv-airflow. Apart from the jobs', whose pyspark clashes with the pyspark-client of Airflow's provider.
. "$(dirname "$0")/common.sh"
infra/setup/system.sh

say "Airflow environment .venv-airflow"
environment .venv-airflow
uv pip install --quiet --compile-bytecode --python .venv-airflow/bin/python --constraints constraints-airflow.txt --group airflow
# The DAGs need nightrec's list of stages only, and that needs pydantic only.
uv pip install --quiet --python .venv-airflow/bin/python --no-deps --editable .
rm -f .venv-airflow/.installed-*
