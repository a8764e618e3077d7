"""Rules as functions: each raises ValidationError or returns nothing."""

from alpha_pulse.contracts.validation import (
    validate_candle,
    validate_ohlcv,
    validate_symbol,
    validate_timeframe,
)

__all__ = ["validate_candle", "validate_ohlcv", "validate_symbol", "validate_timeframe"]
