"""How long tests wait for what must happen: no promise, only the end of waiting for ever."""

# Far beyond what a busy machine takes, below what pytest allows a test.
PATIENCE_S = 300.0
