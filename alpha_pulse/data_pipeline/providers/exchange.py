"""`ExchangeDataProvider` as part of the library; see `alpha_pulse.producers.library.provider`."""

from alpha_pulse.data_pipeline import ExchangeDataProvider

__all__ = ["ExchangeDataProvider"]
