"""Whether a stream that brings nothing is quiet or dead. Pure: time is an argument.

`Heard` is what one connection has shown, `SilenceWatch` how long a symbol is usually silent, and
`heartbeat` when the log says how far it is complete.
"""
