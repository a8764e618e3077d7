"""One room per exchange: its frames, REST rows, names and limits; nothing else knows one by name.

`registry.exchange_of` returns an exchange's room as an `adapter.Exchange`; an exchange without one
gets the defaults, which go through ccxt's own calls (`generic`).
"""
