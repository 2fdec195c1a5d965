#!/usr/bin/env bash
# Writes constraints.txt and constraints-airflow.txt from pyproject.toml. Versions in them stay unless pyproject.toml rules them out;
# delete a line (or a file) first to take that package's newest.
. "$(dirname "$0")/common.sh"

compile=(pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python "$(python311)")
uv "${compile[@]}" --extra test --extra bench --output-file constraints.txt pyproject.toml
uv "${compile[@]}" --group airflow --output-file constraints-airflow.txt
