"""What the logs and states of commit 4d9f32e leave out. Frozen: nothing is ever added here."""

# Their exchanges whose trade ids are consecutive. Later producers say so in the log.
_CONSECUTIVE = frozenset({"binance", "binanceusdm", "kraken", "okx", "coinbase"})
_TESTNET_SUFFIX = "-testnet"


def had_consecutive_ids(exchange: str) -> bool:
    """Return what that commit took for granted of an exchange's trade ids."""
    return exchange.removesuffix(_TESTNET_SUFFIX) in _CONSECUTIVE
