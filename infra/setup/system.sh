#!/usr/bin/env bash
# What only the system's package manager brings: Java, a C++ compiler, Python's venv and headers. Installs what is missing.
. "$(dirname "$0")/common.sh"

# Spark 4.2 runs on Java 17 and 21.
java_is_usable() {
    local java="${JAVA_HOME:+$JAVA_HOME/bin/}java" version
    version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p') || return 1
    [ "$version" = 17 ] || [ "$version" = 21 ]
}

if [ -n "${JAVA_HOME:-}" ] && ! [ -x "$JAVA_HOME/bin/java" ]; then
    fail "JAVA_HOME=$JAVA_HOME has no bin/java; unset it, or set it to a Java 17"
fi

missing=()
java_is_usable || missing+=(openjdk-17-jre-headless)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
if python=$(python311 2>/dev/null); then
    # Debian's python3.11 comes without ensurepip; a Python from elsewhere has it and its headers.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3.11-venv)
    "$python" -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' \
        || missing+=(python3.11-dev)
else
    missing+=(python3.11 python3.11-venv python3.11-dev)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
command -v apt-get >/dev/null || fail "missing: ${missing[*]} (names as in Debian 12); install them with this system's package manager"
[ "$(id -u)" = 0 ] || fail "missing: ${missing[*]}. As root run:  $install   and then make again"
say "$install"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
java_is_usable || fail "java on PATH is not version 17 or 21 after installing openjdk-17-jre-headless; set JAVA_HOME to /usr/lib/jvm/java-17-openjdk-*"
