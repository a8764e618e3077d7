"""The kernel of one partition: ingest log in, market topics out. Pure.

`admission` decides what is accepted, `records` what it means, `outputs` where it goes;
`plain_trades` is the seam behind which compiled code follows the rules for most trades.
"""
