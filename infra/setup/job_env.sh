#!/usr/bin/env bash
# The environment of the jobs: .venv, with pinned packages, Horovod, Delta's jars and nightrec itself (editable).
. "$(dirname "$0")/common.sh"
infra/setup/system.sh

say "job environment .venv"
environment .venv
uv pip install --quiet --python .venv/bin/python --constraints constraints.txt --editable '.[test]'
wheel=$(infra/setup/horovod.sh)
uv pip install --quiet --python .venv/bin/python --no-deps "$wheel"
.venv/bin/python infra/setup/delta_jars.py "$CACHE/jars"
rm -f .venv/.installed-*
