"""The connection to an exchange: ccxt's client, its tapped sockets, subscriptions and limits.

What arrives is handed on as raw frames; nothing here knows what they mean.
"""
