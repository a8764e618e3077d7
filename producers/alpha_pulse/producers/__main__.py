"""`python -m alpha_pulse.producers`: the role, which hears SIGTERM before it imports the rest."""

import sys

from alpha_pulse.contracts.roles.stopping import end_at_once_when_told

if __name__ == "__main__":
    end_at_once_when_told()
    from alpha_pulse.producers.role import main

    sys.exit(main())
