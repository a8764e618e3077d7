"""`alpha-pulse`: every command in one place, and how an error ends."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterable

import typer

from alpha_pulse.cli import ROLES
from alpha_pulse.contracts.errors import AlphaPulseError

EXIT_INTERRUPTED = 130

# Each command's module in this package.
COMMANDS = {
    "demo": "run.demo",
    "up": "run.up",
    "replay": "replay.replay",
    "sql": "inspect.sql",
    "backfill": "history.backfill",
    "gaps": "history.gaps",
    "verify": "history.verify",
    "status": "inspect.status",
    "doctor": "setup.doctor",
    "schema": "setup.schema",
    "capture": "run.capture",
    "produce": "run.roles",
    "process": "run.roles",
    "sink": "run.roles",
    "migrate": "setup.migrate",
    "deadletters": "inspect.dead_letters",
    "config": "setup.config",
}


def make_app(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """Return the application with the commands that are named.

    Modules are imported only then: ccxt, which some need, takes two seconds.
    """
    app = typer.Typer(
        name="alpha-pulse",
        help="Crypto market data as an event stream: exchanges to Kafka to ClickHouse.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(pipeline)
    for name in names:
        module = importlib.import_module(f"alpha_pulse.cli.{COMMANDS[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app)
        else:
            app.command()(getattr(module, name))
    return app


def pipeline(
    namespace: str = typer.Option(
        "", help="Prefix of topics, groups and the database, so that runs do not meet."
    ),
) -> None:
    """Crypto market data as an event stream: exchanges to Kafka to ClickHouse."""
    if namespace:
        os.environ["ALPHA_PULSE_NAMESPACE"] = namespace


def main() -> None:
    """Run a command; an error of ours is one line on stderr and exit code 1, Ctrl-C one and 130."""
    # Kafka's client tells of every attempt while a broker or a topic is still coming up; what
    # matters of it reaches the user as an error of ours.
    for client in ("aiokafka", "clickhouse_connect"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    try:
        app = make_app([name for name in COMMANDS if name in sys.argv[1:]] or COMMANDS)
        if not ROLES & set(sys.argv[1:]) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            # The imports are over: from here on asyncio, or the command itself, ends in order.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app()
    except BaseException as error:
        if _is_interrupted(error):
            typer.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        if not isinstance(error, AlphaPulseError):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _is_interrupted(error: BaseException | None) -> bool:
    # Ctrl-C may reach us as what it made fail: it is among the causes then.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
