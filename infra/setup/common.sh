# Sourced by the set-up scripts: where things are kept, which Python is used, and uv.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/nightrec"
UV_VERSION=0.13.9

say() { printf '» %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 1; }

# The interpreter of every environment: spark's workers, torch's wheels and Horovod's build must agree on it.
python311() {
    local name
    for name in python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "Python 3.11 is needed and neither python3.11 nor python3 on PATH is it (Debian 12: apt-get install python3.11)"
}

# A small environment with pip and uv, so that nothing is installed into the user's Python. Prints its folder.
bootstrap() {
    local home="$CACHE/bootstrap/uv-$UV_VERSION"
    if ! [ -x "$home/bin/uv" ]; then
        say "uv $UV_VERSION into $home" >&2
        rm -rf "$home"
        "$(python311)" -m venv "$home"
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
    fi
    echo "$home"
}

# uv hard-links packages out of its cache: a second checkout installs in seconds and the 4.7 GB of torch lie on disk once.
uv() {
    local home
    home=$(bootstrap)
    "$home/bin/uv" "$@"
}

# What the user told pip about where packages come from holds for uv too; certificates are the system's for both.
export UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}" UV_NO_CONFIG=1
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS// /,}}"

# An empty environment in folder $1, or the one that is there if its interpreter still runs.
environment() {
    if ! "$1/bin/python" -c '' 2>/dev/null; then
        uv venv --quiet --clear --python "$(python311)" "$1"
    fi
}
