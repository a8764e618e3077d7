"""`python -m alpha_pulse.sinks`: the role, which hears SIGTERM before it imports the rest."""

import sys

from alpha_pulse.contracts.roles.stopping import exit_on_signal

if __name__ == "__main__":
    exit_on_signal()
    from alpha_pulse.sinks.role import main

    sys.exit(main())
