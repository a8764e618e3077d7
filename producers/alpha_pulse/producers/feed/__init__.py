"""From frames to the log: each symbol's feed puts its trades in order and says what is missing.

`Intake` turns frames into ticks, `SymbolFeed` ticks into events, `Pump` publishes them.
"""
