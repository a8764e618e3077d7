"""The kernel of one partition: ingest log in, market topics out. Pure.

`admission` decides what is accepted, `records` what it means, `outputs` where it goes.
"""
