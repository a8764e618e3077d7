"""`alpha-pulse verify`: our candles against the exchange's own, field by field."""

import asyncio
from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.cli.history.run import EXIT_MISSING, running_pipeline, time_us
from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import format_us
from alpha_pulse.contracts.market import MINUTE_US, get_timeframe
from alpha_pulse.data_pipeline.history.pipeline import for_exchange, open_pipeline
from alpha_pulse.data_pipeline.history.stored import stored_market
from alpha_pulse.data_pipeline.history.verify import Verdict


def verify(
    exchange: Annotated[str, typer.Option(help="Only this exchange.")] = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    timeframe: Annotated[str, typer.Option(help="Of the candles to compare.")] = "1m",
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
    if any(verdict.mismatches or verdict.absent for verdict in verdicts):
        raise typer.Exit(EXIT_MISSING)


async def _run(
    settings: Config, chosen: tuple[str, str], timeframe: str,
    window: tuple[int | None, int | None], *, heal: bool,
) -> list[Verdict]:  # fmt: skip
    verdicts = []
    async with running_pipeline(settings) as config, stored_market(config) as stored:
        markets = await stored.chosen_markets(*chosen)
        for exchange in dict.fromkeys(market.exchange for market, _, _ in markets):
            async with open_pipeline(for_exchange(config, exchange)) as pipeline:
                for market, first_us, last_us in markets:
                    if market.exchange != exchange:
                        continue
                    start_us = first_us if window[0] is None else window[0]
                    end_us = last_us + MINUTE_US if window[1] is None else window[1]
                    if heal and timeframe == "1m":
                        clock_us = await pipeline.history.clock_us()
                        await pipeline.backfill.candles.fill(
                            market.symbol, timeframe, start_us, end_us, clock_us
                        )
                    verdicts.append(
                        await pipeline.verifier.verify(
                            market.symbol, timeframe, start_us, end_us, heal=heal
                        )
                    )
    return verdicts


def _json(verdict: Verdict) -> dict[str, Any]:
    return {
        "exchange": verdict.market.exchange,
        "symbol": verdict.market.symbol,
        "timeframe": verdict.timeframe,
        "start": format_us(verdict.start_us),
        "end": format_us(verdict.end_us),
        "compared": verdict.compared,
        "healed": verdict.healed,
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
