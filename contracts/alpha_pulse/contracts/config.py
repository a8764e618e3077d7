"""Every setting: frozen dataclasses, loaded from one TOML file and the environment.

Order of precedence: environment, then the file, then the defaults below. Each setting `[section]
name` is also read from `ALPHA_PULSE_<SECTION>_<NAME>`; five have a short form (`SHORT_NAMES`). A
secret may come from a file named in `<VARIABLE>_FILE`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from alpha_pulse.contracts.config_sources import Key, list_settings, read_sources
from alpha_pulse.contracts.errors import ConfigError, ValidationError
from alpha_pulse.contracts.market import check_exchange, check_symbol

# The variable on the left sets the section and field on the right ("" is the top level).
SHORT_NAMES: dict[str, Key] = {
    "ALPHA_PULSE_KAFKA": ("kafka", "bootstrap"),
    "ALPHA_PULSE_CLICKHOUSE": ("clickhouse", "url"),
    "ALPHA_PULSE_EXCHANGE_URL": ("producer", "exchange_url"),
    "ALPHA_PULSE_NAMESPACE": ("", "namespace"),
    "ALPHA_PULSE_DATA_DIR": ("", "data_dir"),
}
_SECRET: dict[str, Any] = {"secret": True}
_NAMESPACE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})?")

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Amount = Annotated[float, Meta(ge=0)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class KafkaConfig:
    """Where Kafka is and how to prove who we are."""

    bootstrap: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False, metadata=_SECRET)
    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    request_timeout_ms: Positive = 30_000


@dataclass(frozen=True, kw_only=True)
class TopicsConfig:
    """How topics are made where they do not exist yet."""

    partitions: Positive = 8
    replication_factor: Positive = 1
    min_insync_replicas: Positive = 1
    retention_scale: Amount = 1.0  # times each topic's own retention


@dataclass(frozen=True, kw_only=True)
class ClickHouseConfig:
    """Where ClickHouse's HTTP interface is, and the database that is ours."""

    url: str = "http://127.0.0.1:8123"
    user: str = "default"
    password: str = field(default="", repr=False, metadata=_SECRET)
    database: str = "alpha_pulse"
    tls_ca_file: str = ""
    connect_timeout_s: Amount = 10.0
    request_timeout_s: Amount = 120.0
    cluster: str = ""  # set: tables are Replicated…MergeTree, made ON CLUSTER
    trades_retention_days: Count = 0  # 0: for ever; whole months are dropped
    candles_retention_days: Count = 0
    events_retention_days: Count = 0  # gaps, status, audits, dead letters


@dataclass(frozen=True, kw_only=True)
class ProducerConfig:
    """Which markets are followed, and how."""

    exchange: str = "binance"
    symbols: tuple[str, ...] = ("BTC/USDT",)
    testnet: bool = False
    exchange_url: str = ""  # a server that plays the exchange, such as the replay exchange
    # Read-only market data key: some exchanges show old trades by id only with one.
    api_key: str = field(default="", repr=False, metadata=_SECRET)
    shard_index: Count = 0  # this producer's part of the symbols, 0 to shard_count - 1
    shard_count: Positive = 1
    exchange_candles: bool = True  # also follow the exchange's own closed 1m candles
    clock: Literal["exchange", "event"] = "exchange"  # event: a recording at full speed
    until_us: Count = 0  # event clock only: end when the exchange's clock is there; 0: never
    heartbeat_grace_s: Amount = 2.0
    hold_back_trades_max: Count = 50_000
    hold_back_s_max: Amount = 30.0
    seek_s_max: Amount = 3_600.0  # a gap that was published is sought over REST for so long
    quarantine_s: Amount = 600.0  # a refused symbol is tried again after this
    silence_s_max: Amount = 8.0  # a silent stream is compared with REST at the latest after this
    reconnect_wait_s_max: Amount = 30.0  # for an exchange that refuses; else 3 s
    publish_pending_bytes_max: Positive = 64 * 2**20
    publish_batch_bytes_max: Positive = 900_000
    publish_interval_s: Amount = 0.05  # a partition sends so often at most; a full batch at once


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    """How trades are admitted and candles are closed."""

    group: str = "processors"
    grace_s: Amount = 2.0
    commit_interval_s: Amount = 0.5
    one_second_candles: bool = False
    open_candles: bool = True
    dedupe_window_s: Amount = 600.0
    closed_candle_keep_s: Amount = 600.0
    missing_range_keep_s: Amount = 172_800.0
    future_s_max: Amount = 86_400.0
    dead_letter_ratio_max: Ratio = 0.1
    dead_letter_run_max: Count = 100
    log_epoch: Positive = 1
    session_timeout_s: Amount = 6.0
    transaction_timeout_s: Amount = 15.0
    stall_s_max: Amount = 60.0  # work, Kafka in reach, no commit for so long: exit, start again
    drain_s_max: Amount = 8.0
    pending_records_max: Count = 60_000  # so many begin a transaction before its time
    state_record_bytes_max: Count = 512 * 1024
    audits: bool = True  # hold closed candles against the exchange's own
    compiled: bool = True  # False: no compiled loop, the rules in Python take every trade
    web_port: Port = 0  # Faust's web views, on loopback; 0: off


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """How batches are bounded on their way into ClickHouse."""

    group: str = "sinks"
    batch_rows_max: Positive = 50_000
    batch_bytes_max: Positive = 16 * 2**20
    batch_age_s_max: Amount = 0.5
    history_age_s_max: Amount = 3.0  # of rows of history, as long as more of them come
    buffered_bytes_max: Positive = 48 * 2**20
    inserts_in_flight_max: Positive = 3
    progress_interval_s: Amount = 5.0
    retry_wait_s_max: Amount = 30.0
    drain_s_max: Amount = 8.0
    session_timeout_s: Amount = 6.0
    dead_letter_run_max: Count = 100
    dead_letter_ratio_max: Ratio = 0.1


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Where each role shows /metrics, /healthz and /readyz."""

    enabled: bool = True
    host: str = "127.0.0.1"
    producer_port: Port = 9410  # each role takes the first free one of ten; 0: any free one
    processor_port: Port = 9420
    sink_port: Port = 9430
    ready_lag_records_max: Count = 100_000  # a role further behind is not ready


@dataclass(frozen=True, kw_only=True)
class HistoryConfig:
    """How the past is fetched over REST, by backfills and by the repair that `up` runs."""

    max_retries: Count = 8  # of one request, beyond its first attempt
    retry_delay_s: Amount = 0.5  # before the first repeat; doubles up to 30 s
    page_rows_max: Count = 0  # 0: as many as the exchange serves at once
    pages_ahead_max: Positive = 4  # asked for at once, per symbol
    limit_share: Ratio = 0.95  # of the exchange's rate limit that a backfill takes; 0: no limit
    repair: bool = True  # `up` heals gaps and mismatches by itself
    repair_interval_s: Amount = 300.0
    repair_lookback_s: Amount = 86_400.0
    repair_limit_share: Ratio = 0.2


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The page with live candles that `demo` and `up` show, on loopback only."""

    enabled: bool = True
    port: Port = 8765  # a free one where it is taken; 0: any free one
    # A reader of a given ClickHouse; empty: [clickhouse] user. The embedded one has its own.
    clickhouse_user: str = ""
    clickhouse_password: str = field(default="", repr=False, metadata=_SECRET)
    clients_max: Count = 64
    candles_max: Count = 1_000  # of one answer


@dataclass(frozen=True, kw_only=True)
class SetupConfig:
    """What the one-shot set-up makes besides topics and schema; without a password no user."""

    wait_s_max: Amount = 120.0  # for Kafka, and for ClickHouse
    writer_user: str = "alpha_pulse_writer"
    writer_password: str = field(default="", repr=False, metadata=_SECRET)
    migrator_user: str = "alpha_pulse_migrator"
    migrator_password: str = field(default="", repr=False, metadata=_SECRET)
    reader_user: str = "alpha_pulse_reader"
    reader_password: str = field(default="", repr=False, metadata=_SECRET)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one pipeline."""

    namespace: str = ""
    data_dir: str = ".alpha-pulse"
    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    clickhouse: ClickHouseConfig = ClickHouseConfig()
    producer: ProducerConfig = ProducerConfig()
    processor: ProcessorConfig = ProcessorConfig()
    sink: SinkConfig = SinkConfig()
    metrics: MetricsConfig = MetricsConfig()
    history: HistoryConfig = HistoryConfig()
    page: PageConfig = PageConfig()
    setup: SetupConfig = SetupConfig()

    def named(self, name: str) -> str:
        """Return a group's or transaction's name inside the namespace."""
        return f"{self.namespace}.{name}" if self.namespace else name

    @property
    def database(self) -> str:
        """Name of the ClickHouse database inside the namespace."""
        if not self.namespace:
            return self.clickhouse.database
        return f"{self.namespace}_{self.clickhouse.database}".replace("-", "_").replace(".", "_")


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the settings.

    Args:
        path: a TOML file; None: the defaults.
        environ: environment variables, which stand above the file.

    Raises:
        ConfigError: names each setting that is wrong, its line or variable, and what is allowed.
    """
    return load_with_places(path, environ)[0]


def load_with_places(
    path: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Config, dict[Key, str]]:
    """Return the settings, and where each that is not a default comes from.

    Args:
        path: see `load_config`.
        environ: see `load_config`.

    Returns:
        The settings, and a place by section and name: `FILE:LINE` or the name of a variable.

    Raises:
        ConfigError: see `load_config`.
    """
    config, places = read_sources(Config(), path, environ, SHORT_NAMES)
    problems = [
        f"{problem} (from {places.get(key, 'the defaults')})"
        for key, problem in _contradictions(config)
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return config, places


def _contradictions(config: Config) -> list[tuple[Key, str]]:
    # What no type can say.
    found: list[tuple[Key, str]] = []
    producer = config.producer
    if not _NAMESPACE.fullmatch(config.namespace):
        found.append(
            (
                ("", "namespace"),
                "expected letters, digits, '.', '_' and '-' in namespace, which goes into names of "
                f"topics and databases, found {config.namespace[:80]!r}",
            )
        )
    try:
        check_exchange(producer.exchange)
    except ValidationError as error:
        found.append((("producer", "exchange"), str(error)))
    for symbol in producer.symbols:
        try:
            check_symbol(symbol)
        except ValidationError as error:
            found.append((("producer", "symbols"), str(error)))
    if producer.shard_index >= producer.shard_count:
        found.append(
            (
                ("producer", "shard_index"),
                f"expected [producer] shard_index from 0 to {producer.shard_count - 1}, as "
                f"shard_count is {producer.shard_count}, found {producer.shard_index}",
            )
        )
    return found


def config_environment(config: Config) -> dict[str, str]:
    """Return the variables that make `load_config` rebuild exactly this configuration.

    Every setting is listed, the short names too: nothing that a child process inherits can change
    what it was told.
    """
    variables: dict[str, str] = {}
    by_key: dict[Key, str] = {}
    for setting in list_settings(config):
        value = setting.value
        by_key[setting.key] = ",".join(value) if isinstance(value, tuple) else str(value)
        variables[setting.variable] = by_key[setting.key]
    for short, key in SHORT_NAMES.items():
        variables[short] = by_key[key]
    return variables


def redacted(config: Config) -> dict[str, Any]:
    """Return the settings as nested dictionaries, without any secret: `***` where one is set."""
    shown: dict[str, Any] = {}
    for setting in list_settings(config):
        table = shown.setdefault(setting.section, {}) if setting.section else shown
        table[setting.name] = setting.shown
    return shown
