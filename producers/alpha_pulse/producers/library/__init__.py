"""The library's way to the exchanges: `ExchangeFetcher` for the past, `ExchangeDataProvider` live.

Neither needs Kafka.
"""
