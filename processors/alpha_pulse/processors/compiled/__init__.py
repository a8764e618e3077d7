"""The same rules in compiled code, for plain trades: the next of their symbol, in canonical form.

`trades` is the seam; whatever is not plain stops the loop and takes the rules in Python.
"""
