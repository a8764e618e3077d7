"""Topics to topics: validation, deduplication, candles with a proof of their coverage."""
