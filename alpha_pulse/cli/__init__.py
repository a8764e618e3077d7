"""The command line: one folder per kind of command, one module per command (`main.COMMANDS`)."""

# The commands that are a role. Importing them takes seconds, so signals are heard before that.
ROLES = frozenset({"produce", "process", "sink"})
