"""Healing over REST: trades that the stream lost and candles that it did not bring.

`CatchUp` decides what to ask for, `Healer` asks within the exchange's limits.
"""
