# Every target installs what it needs, works first and alone, and does nothing twice.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DATE ?= 1998-03-25
DEMO := var/demo
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nightrec

# An environment is up to date when its stamp names the set-up's present fingerprint; editable installs know their folder.
FINGERPRINT := $(shell { pwd; cat pyproject.toml constraints*.txt infra/setup/*.* infra/config/log4j2.properties; } | sha256sum | cut -c1-16)
JOB := .venv/.installed-$(FINGERPRINT)
AIRFLOW := .venv-airflow/.installed-$(FINGERPRINT)
DATA := $(CACHE)/movielens/ml-100k.inter $(CACHE)/encoders/all-MiniLM-L6-v2/model.safetensors

# Another Spark's home or another project's modules must not leak into this one.
unexport SPARK_HOME SPARK_CONF_DIR PYTHONPATH

.PHONY: help nightly test install airflow-install lint bench quality soak golden constraints doctor clean

help:  ## explain every target (what plain `make` does)
	@echo "nightrec: a nightly batch recommender. Type make and one of:"; echo
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo; echo "Nothing is installed outside this folder but caches in $(CACHE) and uv's own."

nightly: install  ## tonight's lists for MovieLens-100K; another night with DATE=1998-03-26
	@.venv/bin/python infra/demo/movielens.py --out $(DEMO)
	@.venv/bin/nightrec run --config $(DEMO)/nightrec.toml --date $(DATE)

# Types take one core, and Airflow's packages none while they are fetched.
test: install  ## linters, types and every test
	@$(MAKE) --no-print-directory --jobs 2 lint airflow-install
	@.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder

install: $(JOB) $(DATA)  ## the jobs' environment .venv, Delta's jars, Horovod, MovieLens-100K, the encoder
	@:

airflow-install: $(AIRFLOW)  ## Airflow's environment .venv-airflow
	@:

lint: install  ## ruff and strict mypy
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary

bench: install  ## time it beside its peers, an hour or two; one benchmark with ONLY=topk
	@.venv/bin/python infra/benchmarks/bench.py $(if $(ONLY),--only $(ONLY))

quality: install  ## judge the lists on MovieLens-100K; on another log with RAW=folder NAME=name and REPEATS=1
	@.venv/bin/python infra/demo/movielens.py --out $(DEMO)
	@.venv/bin/python infra/quality/measure.py $(or $(NAME),movielens) --work var/quality --raw $(or $(RAW),$(DEMO)/raw) \
		$(if $(RAW),,--config $(DEMO)/nightrec.toml --days 28) $(if $(REPEATS),--repeats)

soak: install  ## kill nights at random, 200 times and four hours or KILLS=40 SEED=3, into infra/soak/results; then the longest tests
	@.venv/bin/python infra/soak/soak.py --kills $(or $(KILLS),200) --seed $(or $(SEED),1) $(if $(STOPS),--stops $(STOPS))
	@.venv/bin/pytest -m soak

golden: airflow-install  ## rebuild the expected spark-submit lines of the DAGs' tests
	@.venv-airflow/bin/python tests/airflow_dags/rendered.py --write

constraints:  ## resolve pyproject.toml again into constraints.txt and constraints-airflow.txt
	@infra/setup/constraints.sh

doctor: install  ## check this machine; every complaint names its mend
	@.venv/bin/nightrec doctor

clean:  ## remove the environments and the demonstration; caches stay
	rm -rf .venv .venv-airflow var .pytest_cache .mypy_cache .ruff_cache

$(JOB):
	@infra/setup/job_env.sh
	@touch $@

$(AIRFLOW):
	@infra/setup/airflow_env.sh
	@touch $@

$(DATA) &: | $(JOB)
	@infra/setup/data.sh
