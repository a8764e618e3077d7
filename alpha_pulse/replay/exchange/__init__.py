"""The replay exchange: serves a market over the exchange's own protocols, with faults.

`server` answers, `conductor` plays the market in time, `ledger` keeps what was sent and withheld.
"""
