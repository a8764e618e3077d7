"""One room per exchange: its frames, its names and what is special about it.

`decoders` lists those with a decoder of ours; any other exchange of ccxt takes the generic path.
"""
