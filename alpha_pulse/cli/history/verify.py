"""`alpha-pulse verify`: our candles against the exchange's own, field by field."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.cli.history.run import EXIT_MISSING, running_pipeline, say, time_us
from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import DataFetchError, format_us
from alpha_pulse.contracts.market import get_timeframe
from alpha_pulse.data_pipeline.history.pipeline import Pipeline, for_exchange, open_pipeline
from alpha_pulse.data_pipeline.history.stored import stored_market
from alpha_pulse.data_pipeline.history.verify import Verdict


def verify(
    exchange: Annotated[str, typer.Option(help="Only this exchange.")] = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    timeframe: Annotated[
        str, typer.Option(help="Of the candles to compare; default: the shortest stored.")
    ] = "",
    start: Annotated[str, typer.Option(help="ISO time; default: the first candle.")] = "",
    end: Annotated[str, typer.Option(help="ISO time; default: the last candle.")] = "",
    heal: Annotated[bool, typer.Option("--heal", help="Refetch and correct.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: ConfigFile = None,
) -> None:
    """Compare the stored candles with the exchange's own, fetched now; list what differs.

    With --heal the trades of what differs are fetched again and correct it by a revision.
    Exit code 3: something differs (after healing: still).
    """
    settings = load_config(config)
    if exchange:
        for_exchange(settings, exchange)  # refuses a name that is none
    if timeframe:
        get_timeframe(timeframe)
    window = (
        time_us(start, "--start") if start else None,
        time_us(end, "--end") if end else None,
    )
    verdicts = asyncio.run(_run(settings, (exchange, symbol), timeframe, window, heal=heal))
    if json:
        typer.echo(orjson.dumps({"markets": [_json(verdict) for verdict in verdicts]}).decode())
    else:
        for verdict in verdicts:
            _tell(verdict)
    if any(verdict.mismatches or verdict.absent or verdict.error for verdict in verdicts):
        raise typer.Exit(EXIT_MISSING)


async def _run(
    settings: Config, chosen: tuple[str, str], timeframe: str,
    window: tuple[int | None, int | None], *, heal: bool,
) -> list[Verdict]:  # fmt: skip
    verdicts: list[Verdict] = []
    async with running_pipeline(settings) as config, stored_market(config) as stored:
        spans = await stored.chosen_markets(*chosen)
        wanted = [
            Verdict(
                span.market,
                timeframe or span.timeframe or "1m",
                span.start_us if window[0] is None else window[0],
                span.end_us if window[1] is None else window[1],
            )
            for span in spans
        ]
        for exchange in dict.fromkeys(verdict.market.exchange for verdict in wanted):
            mine = [verdict for verdict in wanted if verdict.market.exchange == exchange]
            verdicts += await _of_exchange(for_exchange(config, exchange), mine, heal=heal)
    return verdicts


async def _of_exchange(config: Config, wanted: list[Verdict], *, heal: bool) -> list[Verdict]:
    # Each symbol's fault is its own, and each exchange's: the others are compared all the same.
    verdicts: list[Verdict] = []
    try:
        async with open_pipeline(config) as pipeline:
            for verdict in wanted:
                try:
                    verdicts.append(await _of_symbol(pipeline, verdict, heal=heal))
                except DataFetchError as error:
                    verdicts.append(replace(verdict, error=str(error)))
    except DataFetchError as error:
        return [replace(verdict, error=str(error)) for verdict in wanted]
    return verdicts


async def _of_symbol(pipeline: Pipeline, wanted: Verdict, *, heal: bool) -> Verdict:
    symbol, timeframe = wanted.market.symbol, wanted.timeframe
    window = (wanted.start_us, wanted.end_us)
    pipeline.history.check_listed(symbol)
    span = f"{format_us(wanted.start_us)} to {format_us(wanted.end_us)}"
    say(f"{wanted.market.exchange} {symbol} {timeframe}: comparing {span}")
    if heal and timeframe == "1m":
        clock_us = await pipeline.history.clock_us()
        await pipeline.backfill.candles.fill(symbol, timeframe, *window, clock_us)
    return await pipeline.verifier.verify(symbol, timeframe, *window, heal=heal)


def _json(verdict: Verdict) -> dict[str, Any]:
    return {
        "exchange": verdict.market.exchange,
        "symbol": verdict.market.symbol,
        "timeframe": verdict.timeframe,
        "start": format_us(verdict.start_us),
        "end": format_us(verdict.end_us),
        "compared": verdict.compared,
        "healed": verdict.healed,
        "error": verdict.error or None,
        "absent": [format_us(time_us) for time_us in verdict.absent],
        "mismatches": [
            {
                "open_time": format_us(mismatch.open_time_us),
                "coverage": mismatch.coverage,
                "differences": {
                    difference.field: {"ours": difference.ours, "exchange": difference.exchange}
                    for difference in mismatch.differences
                },
            }
            for mismatch in verdict.mismatches
        ],
    }


def _tell(verdict: Verdict) -> None:
    if verdict.error:
        typer.echo(
            f"{verdict.market.exchange} {verdict.market.symbol} {verdict.timeframe}: "
            f"{verdict.error}",
            err=True,
        )
        return
    typer.echo(
        f"{verdict.market.exchange} {verdict.market.symbol} {verdict.timeframe}: compared "
        f"{verdict.compared}, different {len(verdict.mismatches)}, absent {len(verdict.absent)}"
        + (f", healed {verdict.healed}" if verdict.healed else "")
    )
    for mismatch in verdict.mismatches:
        fields = ", ".join(
            f"{difference.field} {difference.ours} (exchange {difference.exchange})"
            for difference in mismatch.differences
        )
        typer.echo(f"  {format_us(mismatch.open_time_us)} ({mismatch.coverage}): {fields}")
    for open_us in verdict.absent:
        typer.echo(f"  {format_us(open_us)}: the exchange has a candle and we have none")
