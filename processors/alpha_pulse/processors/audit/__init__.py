"""Faust's room: the audit compares each closed candle with the exchange's own.

`ledger` is the pure part, `agent` the tables, the agent and the page around it.
"""
