"""The command line: one folder per kind of command, one module per command (`main.COMMANDS`)."""
