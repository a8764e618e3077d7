"""`alpha-pulse`, also `python -m alpha_pulse.cli`: hears signals before it imports the commands."""

import os
import signal
import sys

from alpha_pulse.cli import ROLES


def main() -> None:
    """Run the command that the arguments name."""
    if ROLES & set(sys.argv[1:]):
        # A role that has not begun has nothing to drain.
        from alpha_pulse.contracts.roles.stopping import exit_on_signal

        exit_on_signal()
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the command runs, which then handles it: imports take seconds.
        signal.signal(signal.SIGINT, _end)
    from alpha_pulse.cli.main import main as run

    run()


def _end(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
