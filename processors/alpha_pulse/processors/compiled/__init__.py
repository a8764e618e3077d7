"""The same rules in compiled code, for plain trades: the next of their symbol, in canonical form.

`trades` is what the kernel uses; `loop` and `closing` are compiled, over the `tables`. Whatever is
not plain stops the loop and goes by the rules in Python. `[processor] compiled = false` leaves all
of it out.
"""
