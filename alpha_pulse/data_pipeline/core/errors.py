"""Errors of the library, under one base; `about` holds the market and the window."""

from alpha_pulse.contracts.errors import (
    AlphaPulseError,
    ConfigError,
    DataFetchError,
    MarketWindow,
    StorageError,
    ValidationError,
)

__all__ = [
    "AlphaPulseError",
    "ConfigError",
    "DataFetchError",
    "MarketWindow",
    "StorageError",
    "ValidationError",
]
