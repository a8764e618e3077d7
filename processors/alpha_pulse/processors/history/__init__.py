"""History jobs that bring the exchange's own candles, many at once. Pure."""
