"""The rules: trades of one symbol in, versions of candles out. Pure; time is what the events say.

Start with `stream`; it holds the order of trades, the proof, the windows, and closes them.
"""
