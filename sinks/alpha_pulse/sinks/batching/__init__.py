"""Which rows go into one insert, and which are stored already: pure decisions, no clock, no client.

Offers `Waiting` and `Batch` (rows on their way), `plan` and `KnownOffsets` (where to go on).
"""
