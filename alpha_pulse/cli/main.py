"""`alpha-pulse`: every command in one place, and how an error ends."""

import logging
import os
import sys

import typer

from alpha_pulse.cli.backfill import backfill
from alpha_pulse.cli.capture import capture
from alpha_pulse.cli.config import app as config
from alpha_pulse.cli.dead_letters import app as dead_letters
from alpha_pulse.cli.demo import demo
from alpha_pulse.cli.doctor import doctor
from alpha_pulse.cli.gaps import gaps
from alpha_pulse.cli.migrate import migrate
from alpha_pulse.cli.replay import replay
from alpha_pulse.cli.roles import process, produce, sink
from alpha_pulse.cli.schema import schema
from alpha_pulse.cli.sql import sql
from alpha_pulse.cli.status import status
from alpha_pulse.cli.up import up
from alpha_pulse.cli.verify import verify
from alpha_pulse.contracts.errors import AlphaPulseError

app = typer.Typer(
    name="alpha-pulse",
    help="Crypto market data as an event stream: exchanges to Kafka to ClickHouse.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(up)
app.command()(replay)
app.command()(sql)
app.command()(backfill)
app.command()(gaps)
app.command()(verify)
app.command()(status)
app.command()(doctor)
app.command()(schema)
app.command()(capture)
app.command()(produce)
app.command()(process)
app.command()(sink)
app.command()(migrate)
app.add_typer(dead_letters)
app.add_typer(config)


@app.callback()
def pipeline(
    namespace: str = typer.Option(
        "", help="Prefix of topics, groups and the database, so that runs do not meet."
    ),
) -> None:
    """Crypto market data as an event stream: exchanges to Kafka to ClickHouse."""
    if namespace:
        os.environ["ALPHA_PULSE_NAMESPACE"] = namespace


def main() -> None:
    """Run a command; an error of ours is one line on stderr and exit code 1."""
    # Kafka's client tells of every attempt while a broker or a topic is still coming up; what
    # matters of it reaches the user as an error of ours.
    for client in ("aiokafka", "clickhouse_connect"):
        logging.getLogger(client).setLevel(logging.CRITICAL)
    try:
        app()
    except AlphaPulseError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
