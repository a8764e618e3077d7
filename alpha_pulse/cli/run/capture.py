"""`alpha-pulse capture`: an exchange's live market, kept as recordings that replay."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.contracts.config import ProducerConfig, load_config
from alpha_pulse.contracts.market import check_symbol
from alpha_pulse.contracts.roles.stopping import stop_on_signal
from alpha_pulse.producers.capture import capture as capture_market
from alpha_pulse.producers.exchanges.names import with_exchange

EXIT_REFUSED = 3


def capture(
    exchange: Annotated[str, typer.Argument(help="ccxt's id, such as binance.")],
    symbols: Annotated[list[str], typer.Argument(help="Such as BTC/USDT.", metavar="SYMBOL...")],
    out: Annotated[Path, typer.Option(help="Empty or new folder for the recordings.")],
    for_seconds: Annotated[
        float, typer.Option("--for", help="End after so many seconds; 0: on Ctrl-C.")
    ] = 0.0,
    config: ConfigFile = None,
) -> None:
    """Record raw frames, trades and the exchange's own candles; `replay` plays the result.

    Exit code 3: a symbol was refused; the others are recorded.
    """
    settings = load_config(config).producer
    producer = replace(
        with_exchange(settings, exchange, testnet=settings.testnet),
        symbols=tuple(check_symbol(symbol) for symbol in symbols),
    )
    refused: dict[str, str] = {}
    for folder in asyncio.run(_capture(producer, out, for_seconds, refused)):
        typer.echo(folder)
    for symbol, reason in refused.items():
        typer.echo(f"{producer.exchange} {symbol}: {reason}", err=True)
    if refused:
        raise typer.Exit(EXIT_REFUSED)


async def _capture(
    producer: ProducerConfig, out: Path, for_seconds: float, refused: dict[str, str]
) -> list[Path]:
    stop = asyncio.Event()
    stop_on_signal(stop)
    if for_seconds:
        asyncio.get_running_loop().call_later(for_seconds, stop.set)
    return await capture_market(producer, out, stop, refused.__setitem__)
