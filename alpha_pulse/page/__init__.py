"""The page: live candles of the embedded runtime (or given servers) in a browser, read-only."""
