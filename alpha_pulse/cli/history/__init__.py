"""Commands for the past of a market: `backfill` it, find `gaps`, `verify` it."""
