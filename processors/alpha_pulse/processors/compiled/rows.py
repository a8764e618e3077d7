"""Columns of the loop's rows, which are packed values (`candles.packed`)."""

from alpha_pulse.processors.candles.packed import LAYOUT, offset_of

(
    OPEN_US, FIRST_US, FIRST_RANK, FIRST_ID, LAST_US, LAST_RANK, LAST_ID, COUNT, KNOWN, COVERAGE,
    SOURCE, PARTS, LEVEL, AT_US, OPEN, HIGH, LOW, CLOSE,
) = range(18)  # fmt: skip
# Sums and prices in units, two words each.
HIGH_UNITS, LOW_UNITS, VOLUME, QUOTE, BUY = range(18, 28, 2)
TEXTS_AT = offset_of("open")
ROW_WORDS = LAYOUT.size // 8
