"""History over REST: pages of candles and trades that are complete, or say what is missing."""
