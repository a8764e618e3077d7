"""`python -m alpha_pulse.processors`: the Faust worker as a role, set up from the environment."""

import sys
from functools import partial

from alpha_pulse.contracts.roles.stopping import exit_on_signal, exit_within

FAILED_END_S_MAX = 15.0


def main() -> None:
    """Run the worker until SIGTERM or SIGINT; exit 1 when the trade path failed."""
    # Until Faust has its own handlers there is nothing to drain.
    exit_on_signal()
    from alpha_pulse.processors.app import prepare

    app = prepare()
    app.trade_path.on_failure = partial(exit_within, FAILED_END_S_MAX, 1)
    web_port = app.pipeline.processor.web_port
    web = ["--with-web", "--web-port", str(web_port)] if web_port else ["--without-web"]
    sys.argv = ["faust", "--quiet", "worker", "--loglevel", "warn", *web]
    app.main()


if __name__ == "__main__":
    main()
