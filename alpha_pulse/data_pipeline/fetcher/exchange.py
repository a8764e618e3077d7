"""`ExchangeFetcher` as part of the library; its home is `alpha_pulse.producers.library.fetcher`."""

from alpha_pulse.data_pipeline import DataFetchConfig, ExchangeFetcher

__all__ = ["DataFetchConfig", "ExchangeFetcher"]
