"""History over REST: pages of candles and trades that are complete, or say what is missing.

`pages.open_history` yields an exchange's `History`; `absence` proves why there is nothing.
"""
