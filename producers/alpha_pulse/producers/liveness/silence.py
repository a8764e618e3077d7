"""Quiet, or dead? When a symbol's silence must be compared with REST; pure.

A socket may be open and answer pings while nothing comes through it any more. How long a silence is
normal depends on the symbol: what is asked is whether it is improbable at its usual rate.
"""

SECOND_US = 1_000_000
SILENCE_US_MIN = 2 * SECOND_US
# So many trades missed in a row do not happen by chance (e^-20).
EXPECTED_MIN = 20.0
# So many missed in a row may happen, seldom (e^-5).
SUSPICIOUS_MIN = 5.0
ASK_EVERY_US_MAX = 60 * SECOND_US
_MEMORY_US = 120 * SECOND_US


class SilenceWatch:
    """Watches how often a symbol trades, from samples of its counter.

    Every `now_us` is our monotonic clock.

    Args:
        silence_us_max: ask REST after a silence of so long at the latest; a market that REST shows
            to be quiet is asked about less and less often.
    """

    def __init__(self, *, silence_us_max: int = 8 * SECOND_US) -> None:
        self.rate_per_s = 0.0
        self._silence_us_max = silence_us_max
        self._count = 0
        self._sampled_at_us = 0
        self._heard_at_us = 0
        self._ask_at_us = 0
        self._asked = 0

    def sample(self, count: int, now_us: int) -> None:
        """Note the number of trades heard so far, at our monotonic clock."""
        if not self._sampled_at_us or count < self._count:
            self._count, self._sampled_at_us = count, now_us
            self.heard(now_us)
            return
        elapsed_us = now_us - self._sampled_at_us
        if elapsed_us <= 0:
            return
        new = count - self._count
        share = min(1.0, elapsed_us / _MEMORY_US)
        self.rate_per_s += share * (new * SECOND_US / elapsed_us - self.rate_per_s)
        self._count, self._sampled_at_us = count, now_us
        if new:
            self.heard(now_us)

    def heard(self, now_us: int) -> None:
        """Begin a new silence: something came, or nothing could (we did not read)."""
        self._heard_at_us = now_us
        self._asked = 0
        normal_us = EXPECTED_MIN / self.rate_per_s * SECOND_US if self.rate_per_s else 1e18
        wait_us = int(min(max(SILENCE_US_MIN, normal_us), self._silence_us_max))
        self._ask_at_us = now_us + wait_us

    def must_ask(self, now_us: int) -> bool:
        """Return whether REST must be asked now; asking again is then put off, doubling."""
        if not self._heard_at_us or now_us < self._ask_at_us:
            return False
        self._asked += 1
        wait_us = min(self._silence_us_max * 2**self._asked, ASK_EVERY_US_MAX)
        self._ask_at_us = now_us + wait_us
        return True

    def is_silent(self, now_us: int) -> bool:
        """Return whether nothing was heard for longer than trades are on their way."""
        return now_us - self._heard_at_us > SILENCE_US_MIN // 2

    def is_suspicious(self, now_us: int) -> bool:
        """Return whether the symbol is seldom silent for so long: no proof, but a reason to ask."""
        silence_s = (now_us - self._heard_at_us) / SECOND_US
        return bool(self._heard_at_us) and self.rate_per_s * silence_s >= SUSPICIOUS_MIN

    def is_improbable(self, now_us: int) -> bool:
        """Return whether the symbol would hardly ever be silent for so long."""
        silence_s = (now_us - self._heard_at_us) / SECOND_US
        return bool(self._heard_at_us) and self.rate_per_s * silence_s >= 2 * EXPECTED_MIN
