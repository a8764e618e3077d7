"""A Kafka with TLS, SCRAM, client certificates and rights, a ClickHouse with TLS and users: who
connects, and how the rest is told. Kafka's rights are those of docs/security.md, as written there.
"""

import asyncio
import datetime
import ipaddress
import re
import shlex
import shutil
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import (
    AUDITS,
    CANDLES,
    INGEST,
    PROCESSOR_STATE,
    TRADES,
    TopicOf,
)
from alpha_pulse.embedded.clickhouse import ClickHouseServer
from alpha_pulse.embedded.front.users import Login, Role
from alpha_pulse.embedded.jars import default_cache_dir, fetch_jars, pinned_jars
from alpha_pulse.embedded.kafka import KafkaServer
from alpha_pulse.embedded.kafka_listeners import KafkaSecurity, SecureListener
from alpha_pulse.processors.audit.credentials import faust_credentials
from alpha_pulse.producers.feed.resume import last_trades
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.lanes.consumer import Sink
from tests.patience import PATIENCE_S, check_promise
from tests.processors.workers import worker

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
PASSWORD = "canary-7f3a91c2-of-kafka"
USERS = ("producer", "processor", "sink", "reader", "nobody")
REFUSED_WITHIN_S = 10.0
START_US = 1_763_942_400_000_000
# The wire's numbers of what kafka-acls.sh calls by name. Source: KIP-140.
RESOURCES = {"--topic": 2, "--group": 3, "--transactional-id": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
LITERAL, PREFIXED, ALLOW = 3, 4, 3


class Authority:
    """A certificate authority of this test, which signs certificates into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, is_authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, common_name: str) -> tuple[Path, Path]:
        """Return a key's file and its certificate's file, for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(common_name, key, is_authority=False)
        paths = tuple(self.folder / f"{self.name}-{common_name}.{kind}" for kind in ("key", "crt"))
        paths[0].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return paths[0], paths[1]

    def _sign(
        self, common_name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(named(common_name))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@dataclass(frozen=True)
class Secured:
    """The broker, and how each user connects to it."""

    plain: KafkaConfig  # this machine's administrator
    authority: Authority
    stranger: Authority
    server_file: Path  # key and certificate of a server on 127.0.0.1
    scram_address: str
    mtls_address: str
    log_dir: Path

    def scram(self, user: str, password: str = PASSWORD) -> KafkaConfig:
        return KafkaConfig(
            bootstrap=self.scram_address,
            security_protocol="SASL_SSL",
            sasl_username=user,
            sasl_password=password,
            tls_ca_file=str(self.authority.file),
        )

    def mtls(self, user: str, authority: Authority | None = None) -> KafkaConfig:
        key, certificate = (authority or self.authority).issue(user)
        return KafkaConfig(
            bootstrap=self.mtls_address,
            security_protocol="SSL",
            tls_ca_file=str(self.authority.file),
            tls_certificate_file=str(certificate),
            tls_key_file=str(key),
        )


def config_of(kafka: KafkaConfig, **sections: Any) -> Config:
    return Config(kafka=kafka, topics=TopicsConfig(partitions=2), **sections)


async def start_broker(server: KafkaServer) -> None:
    await server.start(0)
    config = config_of(KafkaConfig(bootstrap=server.address))
    await ensure_topics(config)
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "test"))
    await admin.start()
    try:
        for line in re.findall(r"^kafka-acls\.sh (.*)$", PAGE, re.MULTILINE):
            for acl in acls_of(shlex.split(line)):
                response = await admin._send_to_controller(CreateAclsRequest(*acl))
                assert all(entry[0] == 0 for entry in response.creation_responses), response
    finally:
        await admin.close()


def acls_of(words: list[str]) -> list[tuple[int, str, int, str, str, int, int]]:
    assert words.pop(0) == "--add"
    options = list(zip(words[::2], words[1::2], strict=True))
    principal = dict(options)["--allow-principal"]
    pattern = PREFIXED if ("--resource-pattern-type", "prefixed") in options else LITERAL
    return [
        (RESOURCES[kind], name, pattern, principal, "*", OPERATIONS[operation], ALLOW)
        for kind, name in options
        if kind in RESOURCES
        for option, operation in options
        if option == "--operation"
    ]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    key, certificate = authority.issue("broker")
    store = folder / "broker.pem"
    store.write_bytes(key.read_bytes() + certificate.read_bytes())
    security = KafkaSecurity(
        listeners=[
            SecureListener(name="SCRAM", key_file=store, scram=True),
            SecureListener(name="MTLS", key_file=store, client_ca_file=authority.file),
        ],
        scram_users=dict.fromkeys(USERS, PASSWORD),
        authorizing=True,
    )
    jars = fetch_jars(pinned_jars(), default_cache_dir(), lambda step: None)
    with (folder / "lock").open("w") as lock, asyncio.Runner() as runner:
        server = KafkaServer(folder / "kafka", jars, lock.fileno(), security)
        try:
            runner.run(start_broker(server))
            yield Secured(
                plain=KafkaConfig(bootstrap=server.address),
                authority=authority,
                stranger=stranger,
                server_file=store,
                scram_address=server.secure_address("SCRAM"),
                mtls_address=server.secure_address("MTLS"),
                log_dir=folder / "kafka",
            )
        finally:
            runner.run(server.stop())
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def clickhouse_url(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A ClickHouse over TLS with a user for each thing to do."""
    folder = tmp_path_factory.mktemp("clickhouse")
    logins = [
        Login("migrator", PASSWORD, Role.ADMIN),
        Login("writer", PASSWORD, Role.WRITER),
        Login("reader", PASSWORD, Role.READER),
    ]
    with (folder / "lock").open("w") as lock, asyncio.Runner() as runner:
        server = ClickHouseServer(
            folder / "data", lock.fileno(), logins, certificate_file=secured.server_file
        )
        try:
            runner.run(server.start(0))
            yield f"https://127.0.0.1:{server.port}"
        finally:
            runner.run(server.stop())
    shutil.rmtree(folder)


@asynccontextmanager
async def refused(words: str) -> AsyncIterator[None]:
    """Hold that what is done inside ends with an error of ours that says the words."""
    began_s = time.monotonic()
    with pytest.raises(AlphaPulseError, match=words) as raised:
        async with asyncio.timeout(PATIENCE_S):
            yield
    check_promise(time.monotonic() - began_s, REFUSED_WITHIN_S)
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


async def publish(kafka: KafkaConfig, topic: str, *values: bytes) -> None:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    try:
        await publisher.publish(topic, message_key("binance", "BTC/USDT"), values)
        await publisher.flush()
    finally:
        await publisher.stop()


async def first(topic: TopicOf[Any], kafka: KafkaConfig, **settings: Any) -> Any:
    return await anext(read(topic, config_of(kafka), **settings))


# --- who is refused -------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Callable[[Secured], KafkaConfig], str]] = {
    "wrong password": (
        lambda s: s.scram("producer", f"{PASSWORD}-wrong"),
        r"the user 'producer' or its password refused",
    ),
    "unknown user": (lambda s: s.scram("mallory"), r"the user 'mallory' or its password refused"),
    "another mechanism": (
        lambda s: replace(s.scram("producer"), sasl_mechanism="SCRAM-SHA-256"),
        r"SCRAM-SHA-256 refused",
    ),
    "unknown authority": (
        lambda s: replace(s.scram("producer"), tls_ca_file=str(s.stranger.file)),
        r"a certificate that can't be verified.*tls_ca_file",
    ),
    "an authority of the system": (
        lambda s: replace(s.scram("producer"), tls_ca_file=""),
        r"a certificate that can't be verified.*tls_ca_file",
    ),
    "another host name": (
        lambda s: replace(
            s.scram("producer"), bootstrap=s.scram_address.replace("127.0.0.1", "localhost")
        ),
        r"a certificate that can't be verified",
    ),
    "plaintext to a TLS port": (
        lambda s: KafkaConfig(bootstrap=s.scram_address),
        r"does that port expect TLS.*security_protocol is 'PLAINTEXT'",
    ),
    "TLS to a plain port": (
        lambda s: replace(s.scram("producer"), bootstrap=s.plain.bootstrap),
        r"speak TLS",
    ),
    "TLS without a password": (
        lambda s: replace(s.scram("producer"), security_protocol="SSL"),
        r"KafkaConnectionError|no TLS session",
    ),
    "no client certificate": (
        lambda s: replace(s.mtls("reader"), tls_certificate_file="", tls_key_file=""),
        r"client certificate",
    ),
    "a certificate of another authority": (
        lambda s: s.mtls("reader", s.stranger),
        r"client certificate",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_whoever_can_not_prove_who_he_is_is_told_so(secured: Secured, case: str) -> None:
    how, words = REFUSALS[case]
    kafka = how(secured)
    async with refused(words):
        await Publisher(kafka, "test").start()
    async with refused(words):
        await first(TRADES, kafka)
    async with refused(words):
        await ensure_topics(config_of(kafka))


async def test_who_has_no_right_is_told_which(secured: Secured) -> None:
    nobody, reader = secured.scram("nobody"), secured.mtls("reader")
    async with refused(r"expected the topic market\.trades\.v1.*nobody.*grant READ"):
        await first(TRADES, nobody)
    async with refused(r"GroupAuthorizationFailed.*grant this user READ on the consumer group"):
        await first(TRADES, reader, group="someone-elses")
    async with refused(r"ClusterAuthorizationFailed.*grant this user WRITE on the topics"):
        await publish(reader, TRADES.name, b"{}")
    async with refused(r"refused for good: TopicAuthorizationFailed"):
        await publish(secured.scram("producer"), TRADES.name, b"{}")
    async with refused(r"create it by hand or grant the right"):
        await ensure_topics(config_of(nobody))
    # A sink may look where the state is, and may not read it.
    async with refused(r"TopicAuthorizationFailed.*grant this user"):
        await first(TopicOf(PROCESSOR_STATE.name, (Trade,), ""), secured.scram("sink"))


# --- who comes in ---------------------------------------------------------------------------------


def events_of(symbol: str) -> list[bytes]:
    """Return four minutes of trades, and the exchange's own candle of the second."""
    example: Any = EXAMPLES[Trade]["binance"]
    trade = msgspec.structs.replace(example, symbol=symbol, price="10", amount="1")
    trades = [
        msgspec.structs.replace(
            trade, trade_id=str(100 + number), trade_time_us=START_US + number * 30_000_000
        )
        for number in range(8)
    ]
    theirs = msgspec.structs.replace(
        EXAMPLES[Candle]["exchange"],
        exchange=trade.exchange,
        symbol=symbol,
        open_time_us=START_US + 60_000_000,
        revision=0,
        **dict.fromkeys(("open", "high", "low", "close"), "10"),
    )
    return [encode(event) for event in (*trades, theirs)]


async def seen(topic: TopicOf[Any], config: Config, symbols: set[str]) -> None:
    """Return once events of all these symbols have come."""
    missing = set(symbols)
    async with asyncio.timeout(PATIENCE_S), aclosing(read(topic, config)) as events:
        async for event in events:
            missing.discard(event.symbol)
            if not missing:
                return


async def until(check: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await check():  # noqa: ASYNC110  - what is asked is Kafka, not an event of ours
            await asyncio.sleep(0.1)


async def test_every_role_does_its_work_with_the_rights_of_the_page(
    secured: Secured, clickhouse_url: str, tmp_path: Path
) -> None:
    """Producer, processor and sink with passwords, reader with a client certificate."""
    by_partition: dict[int, str] = {}
    for number in range(20):
        key = message_key("binance", f"S{number}/USDT")
        by_partition.setdefault(DefaultPartitioner()(key, [0, 1], [0, 1]), f"S{number}/USDT")
    symbols = set(by_partition.values())
    publisher = Publisher(secured.scram("producer"), "test")
    await publisher.start()
    for symbol in symbols:
        await publisher.publish(INGEST.name, message_key("binance", symbol), events_of(symbol))
    await publisher.stop()
    last = await last_trades(config_of(secured.scram("producer")), "binance", list(symbols))
    assert {trade_id for trade_id, _ in last.values()} == {"107"}

    def clickhouse(user: str) -> ClickHouseConfig:
        return ClickHouseConfig(
            url=clickhouse_url,
            user=user,
            password=PASSWORD,
            tls_ca_file=str(secured.authority.file),
        )

    migrator = await ClickHouse.connect(clickhouse("migrator"))
    await migrate(config_of(secured.plain, clickhouse=clickhouse("migrator")), migrator)
    reader = config_of(secured.mtls("reader"))
    connection = await ClickHouse.connect(clickhouse("reader"))
    stop = asyncio.Event()
    async with worker(config_of(secured.scram("processor"), data_dir=str(tmp_path))) as processor:
        log = processor.log
        sink_config = config_of(secured.scram("sink"), clickhouse=clickhouse("writer"))
        sink = asyncio.create_task(Sink(sink_config).run(stop))
        try:

            async def is_stored() -> bool:
                rows = await connection.rows("SELECT DISTINCT symbol FROM alpha_pulse.candles")
                assert not sink.done() or sink.result()
                return {row[0] for row in rows} == symbols

            for topic in (CANDLES["1m"], AUDITS):
                await seen(topic, reader, symbols)
            await until(is_stored)
        except BaseException:
            print(log.read_text()[-3000:])
            raise
        finally:
            stop.set()
            await asyncio.wait([sink], timeout=PATIENCE_S)
            sink.cancel()
            await connection.close()
            await migrator.close()
        group = [e async for e in read(TRADES, reader, group="reader.of-trades", until_end=True)]
        assert len(group) == 16
        assert "AuthorizationFailed" not in log.read_text()
        assert PASSWORD not in log.read_text()


async def test_clickhouse_refuses_what_a_user_may_not_and_whoever_can_not_prove_who_he_is(
    secured: Secured, clickhouse_url: str
) -> None:
    good = ClickHouseConfig(
        url=clickhouse_url,
        user="reader",
        password=PASSWORD,
        tls_ca_file=str(secured.authority.file),
        connect_timeout_s=30.0,
    )
    cases = {
        r"Authentication failed": replace(good, password=f"{PASSWORD}-wrong"),
        r"(?i)authentication failed": replace(good, user="mallory"),
        r"certificate verify failed": replace(good, tls_ca_file=str(secured.stranger.file)),
        r"certificate verify failed: unable": replace(good, tls_ca_file=""),
        r"StorageError|expected ClickHouse at": replace(
            good, url=clickhouse_url.replace("https", "http")
        ),
    }
    for words, config in cases.items():
        async with refused(words):
            await asyncio.to_thread(connect, config)
    migrator = await ClickHouse.connect(replace(good, user="migrator"))
    await migrator.command("CREATE DATABASE IF NOT EXISTS rights ENGINE = Atomic")
    await migrator.command("CREATE TABLE rights.t (a UInt8) ENGINE = MergeTree ORDER BY a")
    for user, statement, may in (
        ("reader", "INSERT INTO rights.t (a) VALUES (1)", False),
        ("reader", "DROP TABLE rights.t", False),
        ("writer", "INSERT INTO rights.t (a) VALUES (1)", True),
        ("writer", "DROP TABLE rights.t", False),
        ("migrator", "DROP TABLE rights.t", True),
    ):
        connection = await ClickHouse.connect(replace(good, user=user))
        try:
            if may:
                await connection.command(statement)
            else:
                async with refused(r"Not enough privileges|readonly"):
                    await connection.command(statement)
        finally:
            await connection.close()
    await migrator.close()


def test_faust_proves_who_it_is_as_every_other_client(secured: Secured) -> None:
    for kafka in (secured.scram("processor"), secured.mtls("processor"), secured.plain):
        used = credentials_to_aiokafka_auth(faust_credentials(kafka))
        ours = client_arguments(kafka, "test")
        for name in ("security_protocol", "sasl_mechanism", "sasl_plain_username"):
            assert used.get(name) == ours.get(name)
        assert used.get("sasl_plain_password") == ours.get("sasl_plain_password")
        context = used.get("ssl_context")
        if kafka is not secured.plain:
            assert context.verify_mode == ssl.CERT_REQUIRED
            assert context.check_hostname


def test_no_password_is_in_the_broker_s_files_or_on_a_command_line(secured: Secured) -> None:
    assert secured.log_dir.joinpath("server.properties").exists()
    for file in secured.log_dir.rglob("*"):
        if file.is_file():
            assert PASSWORD.encode() not in file.read_bytes(), file
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert PASSWORD.encode() not in command.read_bytes()
        except OSError:
            continue
