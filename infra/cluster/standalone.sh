#!/usr/bin/env bash
# A standalone cluster that strangers cannot use: one secret, everything encrypted, REST submission shut.
#
#   infra/cluster/standalone.sh conf FOLDER                     make FOLDER: Spark's settings and a secret, mode 0600
#   infra/cluster/standalone.sh master FOLDER ADDRESS           run the master on a private address of this machine
#   infra/cluster/standalone.sh worker FOLDER ADDRESS MASTER    run a worker; MASTER is spark://ADDRESS:PORT
#   SPARK_CONF_DIR=FOLDER spark-submit --master MASTER jobs/...     or: SPARK_CONF_DIR=FOLDER nightrec run ...
#
# Copy FOLDER to every machine, to the same path. Both daemons stay in the foreground, for systemd or a container to
# keep; what follows is passed on to Spark (--port, --cores, --memory ...). Their web pages have no password: they
# listen on 127.0.0.1 alone. Horovod's rendezvous between training processes is not encrypted: keep ADDRESS private.
set -euo pipefail

say() { echo "standalone.sh: $*" >&2; exit 2; }
[[ $# -ge 2 ]] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
what=$1 folder=$(realpath -m "$2")
settings=$folder/spark-defaults.conf
shift 2
here=$(cd "$(dirname "$0")" && pwd)

if [[ $what == conf ]]; then
  umask 077
  mkdir -p "$folder"
  # Made anew it keeps its secret. Nothing but the shell itself sees it: no command's line holds it.
  secret=$(sed -n 's/^spark.authenticate.secret  *//p' "$settings" 2>/dev/null || true)
  secret=${secret:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
  while IFS= read -r line; do echo "${line/SECRET/$secret}"; done < "$here/spark-defaults.conf" > "$folder/.settings"
  mv "$folder/.settings" "$settings"
  cp "$here/../config/log4j2.properties" "$folder/"
  echo "$settings"
  exit
fi

[[ $what == master || $what == worker ]] || say "no $what; there are conf, master and worker"
[[ -f $settings ]] || say "$settings does not exist: $0 conf $folder makes it"
mode=$(stat -c %a "$settings")
[[ ${mode: -2} == 00 ]] || say "$settings has mode $mode, so others may read the secret: chmod 600 $settings"
grep -q "^spark.authenticate  *true" "$settings" && grep -qE "^spark.authenticate.secret +[0-9a-f]{64}$" "$settings" \
  || say "$settings asks for no secret: $0 conf $folder makes it anew"
address=${1:?ADDRESS}
shift
export SPARK_CONF_DIR=$folder SPARK_LOCAL_IP=127.0.0.1
[[ $what == master ]] && exec spark-class org.apache.spark.deploy.master.Master --host "$address" "$@"
master=${1:?MASTER}
shift
exec spark-class org.apache.spark.deploy.worker.Worker --host "$address" --work-dir "${SPARK_WORKER_DIR:-$folder/work}" "$@" "$master"
