"""Settings of the library's parts, as dataclasses; times are in seconds."""

from dataclasses import dataclass

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.producers.library.fetcher import DataFetchConfig
from alpha_pulse.sinks.library.storage_config import StorageConfig


@dataclass(frozen=True)
class MarketDataConfig:
    """How live data are handed on.

    update_interval: seconds between two updates of subscribers and two batches to the storage.
    max_symbols: more are refused. cache_duration: seconds that `latest` shows what came last.
    """

    update_interval: float = 1.0
    max_symbols: int = 100
    cache_duration: float = 60.0

    def __post_init__(self) -> None:
        for name in ("update_interval", "max_symbols", "cache_duration"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"expected {name} above 0, found {getattr(self, name)!r}")


__all__ = ["DataFetchConfig", "MarketDataConfig", "StorageConfig"]
