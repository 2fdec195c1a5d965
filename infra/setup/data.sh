#!/usr/bin/env bash
# MovieLens-100K and the encoder into the user's cache.
. "$(dirname "$0")/common.sh"
home=$(bootstrap)
"$home/bin/python" infra/setup/data.py "$CACHE"
