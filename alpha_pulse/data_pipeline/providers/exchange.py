"""`ExchangeDataProvider` as part of the library; its home is `alpha_pulse.producers.provider`."""

from alpha_pulse.data_pipeline import ExchangeDataProvider

__all__ = ["ExchangeDataProvider"]
