"""How far a stream came while somebody else followed its rules with its trades. Pure.

Values in a form of their own, so that the rules need not know who that was, and the state can hold
what the stream has not been told yet.
"""

from typing import NamedTuple


class Progress(NamedTuple):
    """What plain trades changed: each the next of its symbol, in the newest window or the next.

    closed: timeframe and packed value of the windows that were closed and published, in that order.
    closed_at_us: the watermark when the last of them closed. close_at_us: the watermark that closes
    the next base window. newest: packed, the base windows behind those, ascending; the last one
    holds the newest trade; empty: only what was closed is told. last_id, watermark_us: of the
    trades ingested.
    """

    last_id: int
    watermark_us: int
    close_at_us: int
    closed: list[tuple[str, bytes]]
    closed_at_us: int
    newest: list[bytes]
