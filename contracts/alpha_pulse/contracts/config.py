"""Every setting: frozen dataclasses, loaded from one TOML file and the environment.

Order of precedence: environment, then the file, then the defaults below. Each setting `[section]
name` is also read from `ALPHA_PULSE_<SECTION>_<NAME>`; five have a short form (`SHORT_NAMES`). A
secret may come from a file named in `<VARIABLE>_FILE`.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from alpha_pulse.contracts.errors import ConfigError

PREFIX = "ALPHA_PULSE_"
# The variable on the left sets the section and field on the right ("" is the top level).
SHORT_NAMES: dict[str, tuple[str, str]] = {
    "ALPHA_PULSE_KAFKA": ("kafka", "bootstrap"),
    "ALPHA_PULSE_CLICKHOUSE": ("clickhouse", "url"),
    "ALPHA_PULSE_EXCHANGE_URL": ("producer", "exchange_url"),
    "ALPHA_PULSE_NAMESPACE": ("", "namespace"),
    "ALPHA_PULSE_DATA_DIR": ("", "data_dir"),
}
_SECRET: dict[str, Any] = {"secret": True}


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
    request_timeout_ms: int = 30_000


@dataclass(frozen=True, kw_only=True)
class TopicsConfig:
    """How topics are made where they do not exist yet."""

    partitions: int = 8
    replication_factor: int = 1
    min_insync_replicas: int = 1
    retention_scale: float = 1.0  # times each topic's own retention


@dataclass(frozen=True, kw_only=True)
class ClickHouseConfig:
    """Where ClickHouse's HTTP interface is, and the database that is ours."""

    url: str = "http://127.0.0.1:8123"
    user: str = "default"
    password: str = field(default="", repr=False, metadata=_SECRET)
    database: str = "alpha_pulse"
    tls_ca_file: str = ""
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 120.0
    cluster: str = ""  # set: tables are Replicated…MergeTree, made ON CLUSTER
    trades_retention_days: int = 0  # 0: for ever; whole months are dropped
    candles_retention_days: int = 0
    events_retention_days: int = 0  # gaps, status, audits, dead letters


@dataclass(frozen=True, kw_only=True)
class ProducerConfig:
    """Which markets are followed, and how."""

    exchange: str = "binance"
    symbols: tuple[str, ...] = ("BTC/USDT",)
    testnet: bool = False
    exchange_url: str = ""  # a server that plays the exchange, such as the replay exchange
    # Read-only market data key: binance serves trades by id beyond the last 1,000 only with one.
    api_key: str = field(default="", repr=False, metadata=_SECRET)
    shard_index: int = 0  # this producer's part of the symbols, 0 to shard_count - 1
    shard_count: int = 1
    exchange_candles: bool = True  # also follow the exchange's own closed 1m candles
    clock: Literal["exchange", "event"] = "exchange"  # event: a recording at full speed
    until_us: int = 0  # event clock only: end when the exchange's clock has come this far; 0: never
    heartbeat_grace_s: float = 2.0
    hold_back_trades_max: int = 50_000
    hold_back_s_max: float = 30.0
    seek_s_max: float = 3_600.0  # a gap that was published is sought over REST for so long
    quarantine_s: float = 600.0  # a refused symbol is tried again after this
    silence_s_max: float = 8.0  # a silent stream is compared with REST at the latest after this
    reconnect_wait_s_max: float = 30.0
    publish_pending_bytes_max: int = 64 * 2**20
    publish_batch_bytes_max: int = 900_000


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    """How trades are admitted and candles are closed."""

    group: str = "processors"
    grace_s: float = 2.0
    commit_interval_s: float = 0.5
    one_second_candles: bool = False
    open_candles: bool = True
    dedupe_window_s: float = 600.0
    closed_candle_keep_s: float = 600.0
    missing_range_keep_s: float = 172_800.0
    future_s_max: float = 86_400.0
    dead_letter_ratio_max: float = 0.1
    dead_letter_run_max: int = 100
    log_epoch: int = 1
    session_timeout_s: float = 6.0
    transaction_timeout_s: float = 15.0
    stall_s_max: float = 60.0  # no commit for so long although there is work: exit, to be restarted
    drain_s_max: float = 8.0
    pending_records_max: int = 25_000  # so many begin a transaction before its time
    state_record_bytes_max: int = 512 * 1024
    audits: bool = True  # hold closed candles against the exchange's own
    web_port: int = 0  # Faust's web views, on loopback; 0: off


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """How batches are bounded on their way into ClickHouse."""

    group: str = "sinks"
    batch_rows_max: int = 50_000
    batch_bytes_max: int = 16 * 2**20
    batch_age_s_max: float = 0.5
    buffered_bytes_max: int = 64 * 2**20
    inserts_in_flight_max: int = 3
    progress_interval_s: float = 5.0
    retry_wait_s_max: float = 30.0
    drain_s_max: float = 8.0
    session_timeout_s: float = 6.0
    dead_letter_run_max: int = 100
    dead_letter_ratio_max: float = 0.1


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Where each role shows /metrics, /healthz and /readyz."""

    enabled: bool = True
    host: str = "127.0.0.1"
    producer_port: int = 9410  # each role takes the first free one of ten; 0: any free one
    processor_port: int = 9420
    sink_port: int = 9430
    ready_lag_records_max: int = 100_000  # a role further behind is not ready


@dataclass(frozen=True, kw_only=True)
class HistoryConfig:
    """How the past is fetched over REST, by backfills and by the repair that `up` runs."""

    max_retries: int = 8  # of one request, beyond its first attempt
    retry_delay_s: float = 0.5  # before the first repeat; doubles up to 30 s
    page_rows_max: int = 0  # 0: as many as the exchange serves at once
    pages_ahead_max: int = 4  # asked for at once, per symbol
    limit_share: float = 0.95  # of the exchange's rate limit that a backfill takes; 0: no limit
    repair: bool = True  # `up` heals gaps and mismatches by itself
    repair_interval_s: float = 300.0
    repair_lookback_s: float = 86_400.0
    repair_limit_share: float = 0.2


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The page with live candles that `demo` and `up` show, on loopback only."""

    enabled: bool = True
    port: int = 8765  # a free one where it is taken; 0: any free one
    # A reader of a given ClickHouse; empty: [clickhouse] user. The embedded one has its own.
    clickhouse_user: str = ""
    clickhouse_password: str = field(default="", repr=False, metadata=_SECRET)
    clients_max: int = 64
    candles_max: int = 1_000  # of one answer


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
    """Return the settings of a TOML file (none: the defaults) with the environment on top.

    Raises: ConfigError naming the setting, its line or variable, and what is allowed.
    """
    text = ""
    if path is not None:
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError(
                f"expected a configuration file at {path}, found none that can be read: {error}"
            ) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML in {path}, found a mistake: {error}") from error
    config = _from_document(document, text, path)
    return _with_environment(config, environ)


def config_environment(config: Config) -> dict[str, str]:
    """Return the variables that make `load_config` rebuild exactly this configuration.

    Every setting is listed, the short names too: nothing that a child process inherits can change
    what it was told.
    """
    variables: dict[str, str] = {}
    for section, name, value in _settings(config):
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        variables[_variable(section, name)] = text
    for short, (section, name) in SHORT_NAMES.items():
        variables[short] = variables[_variable(section, name)]
    return variables


def redacted(config: Config) -> dict[str, Any]:
    """Return the settings as nested dictionaries, each secret that is set replaced by `***`."""
    shown: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            shown[item.name] = {
                inner.name: "***"
                if inner.metadata.get("secret") and getattr(value, inner.name)
                else getattr(value, inner.name)
                for inner in fields(value)
            }
        else:
            shown[item.name] = value
    return shown


def _settings(config: Config) -> list[tuple[str, str, Any]]:
    rows: list[tuple[str, str, Any]] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            rows += [(item.name, inner.name, getattr(value, inner.name)) for inner in fields(value)]
        else:
            rows.append(("", item.name, value))
    return rows


def _variable(section: str, name: str) -> str:
    return PREFIX + (f"{section}_{name}" if section else name).upper()


def _from_document(document: dict[str, Any], text: str, path: Path | None) -> Config:
    known = {item.name: item for item in fields(Config)}
    changes: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise _unknown(key, list(known), text, path)
        default = getattr(Config(), key)
        if is_dataclass(default):
            if not isinstance(value, dict):
                raise ConfigError(f"expected a table [{key}] in {path}, found {value!r}")
            names = {item.name for item in fields(default)}
            for name in value:
                if name not in names:
                    raise _unknown(name, sorted(names), text, path, section=key)
            changes[key] = _convert(value, type(default), f"[{key}] in {path}")
        else:
            changes[key] = _convert(value, type(default), f"{key} in {path}")
    return replace(Config(), **changes)


def _unknown(
    key: str, allowed: list[str], text: str, path: Path | None, section: str = ""
) -> ConfigError:
    current, line_number = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.strip("[]").strip()
        elif current == section and stripped.split("=")[0].strip().strip('"') == key:
            line_number = number
            break
        if not section and current == key:
            line_number = number
            break
    where = f"[{section}]" if section else "the top level"
    return ConfigError(
        f"expected a known setting in {where}, found {key!r} at {path}:{line_number}; "
        f"allowed: {', '.join(allowed)}"
    )


def _with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    found: dict[str, dict[str, str]] = {}
    names = {_variable(section, name): (section, name) for section, name, _ in _settings(config)}
    for variable, (section, name) in {**names, **SHORT_NAMES}.items():
        value = environ.get(variable)
        file = environ.get(f"{variable}_FILE")
        if value is None and file and f"{variable}_FILE" not in names:
            try:
                value = Path(file).read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"expected a secret in the file that {variable}_FILE names, found none: {error}"
                ) from error
        if value is not None:
            found.setdefault(section, {})[name] = value
    changes: dict[str, Any] = {}
    for section, values in found.items():
        target = getattr(config, section) if section else config
        converted = {
            name: _from_text(value, getattr(target, name), type(target), name, section)
            for name, value in values.items()
        }
        changes |= {section: replace(target, **converted)} if section else converted
    return replace(config, **changes)


def _from_text(text: str, current: Any, owner: type, name: str, section: str) -> Any:
    value: Any = text
    if isinstance(current, tuple):
        value = [part.strip() for part in text.split(",") if part.strip()]
    where = f"the variable {_variable(section, name)}"
    return getattr(_convert({name: value}, owner, where), name)


def _convert(value: Any, kind: type, where: str) -> Any:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"expected another value in {where}: {error}") from error
