#!/usr/bin/env bash
# The environment of the jobs: .venv, with pinned packages, Horovod, Delta's jars and nightrec itself (editable).
. "$(dirname "$0")/common.sh"
infra/setup/system.sh

say "job environment .venv"
environment .venv
# Compiled once: where Python may not write beside the packages, each worker would compile 7 s of torch and transformers.
uv pip install --quiet --compile-bytecode --python .venv/bin/python --constraints constraints.txt --editable '.[test,bench]'
wheel=$(infra/setup/horovod.sh)
uv pip install --quiet --python .venv/bin/python --no-deps "$wheel"
.venv/bin/python infra/setup/delta_jars.py "$CACHE/jars"
# Without its log settings each session begins with eight lines of warnings.
.venv/bin/python infra/setup/shared_classes.py infra/config/log4j2.properties
rm -f .venv/.installed-*
