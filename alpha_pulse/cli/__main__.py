"""`alpha-pulse`, also `python -m alpha_pulse.cli`: hears SIGTERM before it imports the commands."""

import sys

from alpha_pulse.contracts.roles.stopping import exit_on_signal

# Only of a role that has not begun it is true that all is done.
ROLES = {"produce", "process", "sink"}


def main() -> None:
    """Run the command that the arguments name."""
    if ROLES & set(sys.argv[1:]):
        exit_on_signal()
    from alpha_pulse.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
