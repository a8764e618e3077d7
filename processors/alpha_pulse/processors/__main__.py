"""`python -m alpha_pulse.processors`: the Faust worker as a role, set up from the environment."""

import os
import sys
import threading

from alpha_pulse.contracts.stopping import end_at_once_when_told

END_S_MAX = 15.0


def end_within(seconds: float = END_S_MAX) -> None:
    """End this process with exit code 1 after so many seconds, whatever still runs by then.

    A worker that failed stops Faust's own consumer first, and while Kafka is away that never ends.
    All that counts is in Kafka, so this is as safe as kill -9.
    """
    timer = threading.Timer(seconds, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


def main() -> None:
    """Run the worker until SIGTERM or SIGINT; exit 1 when the trade path failed."""
    # Until Faust has its own handlers there is nothing to drain.
    end_at_once_when_told()
    from alpha_pulse.processors.app import app, read_config

    app.trade_path.on_failure = end_within
    web_port = read_config().processor.web_port
    web = ["--with-web", "--web-port", str(web_port)] if web_port else ["--without-web"]
    sys.argv = ["faust", "--quiet", "worker", "--loglevel", "warn", *web]
    app.main()


if __name__ == "__main__":
    main()
