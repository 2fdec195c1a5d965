"""The scripts that start a cluster: strangers are refused, only loopback listens, a job with the secret runs."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from spark_commands import CHECKOUT, environment, free_port, wait_for

SCRIPT = CHECKOUT / "infra/cluster/standalone.sh"
# What a stranger sees and does is on Spark's own log.
LOUD = (CHECKOUT / "infra/config/log4j2.properties").read_text().replace("Logger.level = error", "Logger.level = warn")


@dataclass
class Secured:
    """A running cluster: its folder of settings, its address, its daemons' processes."""

    conf: Path
    master: str
    daemons: list[subprocess.Popen[bytes]]
    rest_port: int

    @property
    def secret(self) -> str:
        return secret(self.conf)


def secret(conf: Path) -> str:
    told = (conf / "spark-defaults.conf").read_text()
    return re.findall(r"^spark.authenticate.secret +(\S+)$", told, re.MULTILINE)[0]


def conf(folder: Path) -> Path:
    subprocess.run([SCRIPT, "conf", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    settings, rest_port = conf(folder / "conf"), free_port()
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str | Path) -> Path:
        log = folder / f"{name}.log"
        more = environment(
            SPARK_DAEMON_MEMORY="256m", SPARK_MASTER_OPTS=f"-Dspark.master.rest.port={rest_port}",
            SPARK_DAEMON_JAVA_OPTS="-XX:TieredStopAtLevel=1",
        )  # fmt: skip
        more.pop("SPARK_LOCAL_IP")
        with log.open("wb") as out:
            running.append(
                subprocess.Popen([SCRIPT, *words], env=more, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
            )
        return log

    try:
        log = start("master", "master", settings, "127.0.0.1", "--port", "0", "--webui-port", "0")
        master = wait_for(log, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")[1]
        own = ("--cores", "1", "--memory", "1g", "--webui-port", "0")
        start("worker", "worker", settings, "127.0.0.1", master, *own)
        wait_for(log, "Registering worker")
        yield Secured(settings, master, running, rest_port)
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(timeout=30)


def test_the_secret_is_for_its_owner_and_stays_when_settings_are_made_anew(tmp_path: Path) -> None:
    first = secret(conf(tmp_path / "conf"))
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert stat.S_IMODE((tmp_path / "conf/spark-defaults.conf").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "conf").stat().st_mode) == 0o700
    assert secret(conf(tmp_path / "conf")) == first
    assert secret(conf(tmp_path / "other")) != first


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        ("chmod 640 spark-defaults.conf", "has mode 640, so others may read the secret: chmod 600"),
        ("rm spark-defaults.conf", "does not exist: "),
        ("sed -i s/true/false/ spark-defaults.conf", "asks for no secret"),
        ("sed -i '/authenticate.secret/d' spark-defaults.conf", "asks for no secret"),
    ],
)
def test_an_open_cluster_is_not_started(break_it: str, why: str, tmp_path: Path) -> None:
    settings = conf(tmp_path / "conf")
    subprocess.run(["bash", "-c", break_it], cwd=settings, check=True)
    ended = subprocess.run([SCRIPT, "master", settings, "127.0.0.1"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and why in ended.stderr


def test_nothing_listens_for_submissions_and_pages_are_for_this_machine(cluster: Secured) -> None:
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", cluster.rest_port))
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", 6066))
    listening = {
        place.laddr.ip.removeprefix("::ffff:")
        for daemon in cluster.daemons
        for place in psutil.Process(daemon.pid).net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def stranger(folder: Path, settings: str, *command: str | Path, pattern: str) -> str:
    """The log of a process with other settings up to a pattern; it is then ended."""
    folder.mkdir()
    (folder / "spark-defaults.conf").write_text(settings)
    (folder / "log4j2.properties").write_text(LOUD)
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(
            list(map(str, command)), env=environment(SPARK_CONF_DIR=str(folder)), stdout=out, stderr=out,
            stdin=subprocess.DEVNULL, cwd=CHECKOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(folder / "log", pattern)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return (folder / "log").read_text()


def test_without_the_secret_nobody_gets_in(cluster: Secured, tmp_path: Path) -> None:
    """A worker that knows nothing, and a client with another secret: Spark says no to each before it hears anything."""
    master_log = cluster.conf.parent / "master.log"
    worker = "org.apache.spark.deploy.worker.Worker"
    stranger(
        tmp_path / "open", "", "spark-class", worker, "--host", "127.0.0.1", "--work-dir", tmp_path, cluster.master,
        pattern="Failed to connect to master",
    )  # fmt: skip
    other = (cluster.conf / "spark-defaults.conf").read_text().replace(cluster.secret, "0" * 64)
    said = stranger(
        tmp_path / "wrong", other, "spark-submit", "--master", cluster.master, "--conf",
        "spark.driver.memory=512m", "jobs/export.py", "--config", CHECKOUT / "infra/config/demo.toml", "--date",
        "2026-01-01", pattern="Failed to connect to master",
    )  # fmt: skip
    assert "0" * 64 not in said
    text = master_log.read_text()
    assert text.count("Registering worker") == 1 and "Registering app" not in text


_JOB = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
conf = spark.sparkContext.getConf()
assert conf.get("spark.authenticate") == "true" == conf.get("spark.network.crypto.enabled")
print("sum", spark.range(100).repartition(3).selectExpr("sum(id)").first()[0])
import psutil
commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
print("executors", sum("CoarseGrainedExecutorBackend" in c for c in commands))
print("told", sum(conf.get("spark.authenticate.secret") in c for c in commands))
"""


def test_with_the_secret_a_job_runs_and_no_command_line_tells_it(cluster: Secured, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(_JOB)
    ended = subprocess.run(
        ["spark-submit", "--master", cluster.master, "--conf", "spark.executor.memory=512m", "--conf",
         "spark.driver.memory=512m", "--conf", "spark.eventLog.enabled=true", "--conf",
         "spark.eventLog.compress=false", "--conf", f"spark.eventLog.dir={cluster.conf.parent}", tmp_path / "job.py"],
        env=environment(SPARK_CONF_DIR=str(cluster.conf)), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.splitlines() == ["sum 4950", "executors 1", "told 0"]
    files = [file for file in cluster.conf.parent.rglob("*") if file.is_file() and file.name != "spark-defaults.conf"]
    assert len(files) >= 5 and not [file for file in files if cluster.secret in file.read_text(errors="replace")]
    assert any("spark.authenticate.secret" in file.read_text(errors="replace") for file in files), "blotted out"


def test_yarn_and_kubernetes_ask_for_the_same() -> None:
    def settings(text: str) -> dict[str, str]:
        lines = [line.split(None, 1) for line in text.splitlines() if line.startswith("spark.")]
        return {name: value.strip() for name, value in lines}

    folder = CHECKOUT / "infra/cluster"
    text = (folder / "kubernetes.yaml").read_text()
    manifests = list(yaml.safe_load_all(text))
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    said = {
        "standalone": settings((folder / "spark-defaults.conf").read_text()),
        "yarn": settings((folder / "yarn.conf").read_text()),
        "kubernetes": settings(by_kind["ConfigMap"]["data"]["spark-defaults.conf"]),
    }
    secured = {
        "spark.authenticate": "true", "spark.network.crypto.enabled": "true", "spark.io.encryption.enabled": "true",
        "spark.network.crypto.cipher": "AES/GCM/NoPadding", "spark.network.crypto.saslFallback": "false",
        "spark.ui.enabled": "false",
    }  # fmt: skip
    for name, found in said.items():
        assert secured.items() <= found.items(), name
        assert found.get("spark.authenticate.secret", "SECRET") == "SECRET", name
    assert said["standalone"]["spark.master.rest.enabled"] == "false"
    # A deployment without pseudonyms has no such secret, and an executor that asks for one never starts.
    assert not [name for name in said["kubernetes"] if "secretKeyRef" in name]
    assert "--from-literal" not in text, "a secret on a command line"
    # Named things are there, nobody is root, and no secret's value stands in a manifest.
    assert "Secret" not in by_kind and {m["metadata"]["namespace"] for m in manifests} == {"nightrec"}
    pod = by_kind["Job"]["spec"]["template"]
    assert pod["metadata"]["labels"].items() >= by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
    assert pod["metadata"]["labels"].items() >= by_kind["Service"]["spec"]["selector"].items()
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    driver = pod["spec"]["containers"][0]
    mounted = {mount["name"] for mount in driver["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert pod["spec"]["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"]
