"""The library: history that is complete or says what is missing, and live data, in a storage.

>>> storage = SQLAlchemyStorage()
>>> historical = HistoricalDataManager(storage, ExchangeFetcher())
>>> live = RealTimeDataManager(ExchangeDataProvider(ExchangeType.BINANCE), storage)

See docs/library.md. SQLAlchemyStorage needs an extra: `alpha-pulse-data-pipeline[sql]`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alpha_pulse.data_pipeline.core.config import (
        DataFetchConfig,
        MarketDataConfig,
        StorageConfig,
    )
    from alpha_pulse.data_pipeline.managers.historical import HistoricalDataManager
    from alpha_pulse.data_pipeline.managers.real_time import RealTimeDataManager
    from alpha_pulse.data_pipeline.storage.pipeline import PipelineStorage
    from alpha_pulse.producers.exchanges.registry import ExchangeType
    from alpha_pulse.producers.library.fetcher import ExchangeFetcher
    from alpha_pulse.producers.library.provider import ExchangeDataProvider
    from alpha_pulse.sinks.library.sql_storage import SQLAlchemyStorage

__all__ = [
    "DataFetchConfig",
    "ExchangeDataProvider",
    "ExchangeFetcher",
    "ExchangeType",
    "HistoricalDataManager",
    "MarketDataConfig",
    "PipelineStorage",
    "RealTimeDataManager",
    "SQLAlchemyStorage",
    "StorageConfig",
]

# Imported on first use: ccxt takes a second, and who needs no database needs no SQLAlchemy.
_HOMES = {
    "DataFetchConfig": "alpha_pulse.producers.library.fetcher",
    "ExchangeDataProvider": "alpha_pulse.producers.library.provider",
    "ExchangeFetcher": "alpha_pulse.producers.library.fetcher",
    "ExchangeType": "alpha_pulse.producers.exchanges.registry",
    "HistoricalDataManager": "alpha_pulse.data_pipeline.managers.historical",
    "MarketDataConfig": "alpha_pulse.data_pipeline.core.config",
    "PipelineStorage": "alpha_pulse.data_pipeline.storage.pipeline",
    "RealTimeDataManager": "alpha_pulse.data_pipeline.managers.real_time",
    "SQLAlchemyStorage": "alpha_pulse.sinks.library.sql_storage",
    "StorageConfig": "alpha_pulse.sinks.library.storage_config",
}


if not TYPE_CHECKING:  # a type checker knows the names from above, and refuses others

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"expected one of {', '.join(__all__)}, found {name!r}")
        try:
            return getattr(import_module(home), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("alpha_pulse"):
                raise
            raise ImportError(
                f"expected {error.name} for {name}, found that it is not installed; "
                "pip install 'alpha-pulse-data-pipeline[sql]'"
            ) from error
