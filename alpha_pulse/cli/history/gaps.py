"""`alpha-pulse gaps`: what is missing, candles by timeframe and trades by id; `--heal` fills it."""

import asyncio
from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.cli.history.run import (
    EXIT_MISSING,
    missing_json,
    missing_line,
    now_us,
    running_pipeline,
    say,
    time_us,
)
from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import DataFetchError, ValidationError, format_us
from alpha_pulse.contracts.events import Gap
from alpha_pulse.contracts.market import TIMEFRAMES, get_timeframe
from alpha_pulse.data_pipeline.history.missing import MissingMarket, find_missing
from alpha_pulse.data_pipeline.history.pipeline import Pipeline, for_exchange, open_pipeline
from alpha_pulse.data_pipeline.history.stored import stored_market
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.history.missing import FINAL_REASONS


def gaps(
    exchange: Annotated[str, typer.Option(help="Only this exchange.")] = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    timeframe: Annotated[
        str, typer.Option(help="Only this one; default: the shortest stored and up.")
    ] = "",
    start: Annotated[str, typer.Option(help="ISO time; default: the first candle.")] = "",
    end: Annotated[str, typer.Option(help="ISO time; default: the last candle.")] = "",
    heal: Annotated[bool, typer.Option("--heal", help="Fetch what is missing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: ConfigFile = None,
) -> None:
    """List what is missing between a market's first and last candle; heal it when asked to.

    Exit code 3: something is missing (after healing: still) that may exist.
    """
    settings = load_config(config)
    if exchange:
        for_exchange(settings, exchange)  # refuses a name that is none
    frames = [get_timeframe(timeframe).name] if timeframe else []
    window = (
        time_us(start, "--start") if start else None,
        time_us(end, "--end") if end else None,
    )
    found = asyncio.run(_run(settings, (exchange, symbol), frames, window, heal=heal))
    if json:
        typer.echo(orjson.dumps({"markets": [_json(market) for market in found]}).decode())
    else:
        for market in found:
            _tell(market)
    if any(market.may_be_healed or market.error for market in found):
        raise typer.Exit(EXIT_MISSING)


async def _run(
    settings: Config, chosen: tuple[str, str], frames: list[str],
    window: tuple[int | None, int | None], *, heal: bool,
) -> list[MissingMarket]:  # fmt: skip
    async with running_pipeline(settings) as config, stored_market(config) as stored:
        found = await find_missing(stored, chosen, frames, window)
        if not heal:
            return found
        errors: dict[Market, str] = {}
        for exchange in dict.fromkeys(market.market.exchange for market in found):
            to_heal = [m for m in found if m.market.exchange == exchange and m.may_be_healed]
            errors |= await _heal(config, exchange, to_heal, window[0] or 0)
        found = await find_missing(stored, chosen, frames, window)
        for market in found:
            market.error = errors.get(market.market, "")
        return found


async def _heal(
    config: Config, exchange: str, markets: list[MissingMarket], since_us: int
) -> dict[Market, str]:
    # Each symbol's fault is its own, and each exchange's: the others are healed all the same.
    errors: dict[Market, str] = {}
    try:
        async with open_pipeline(for_exchange(config, exchange)) as pipeline:
            for found in markets:
                try:
                    errors[found.market] = await _heal_one(pipeline, found, since_us)
                except DataFetchError as error:
                    errors[found.market] = str(error)
    except (DataFetchError, ValidationError) as error:
        return dict.fromkeys((found.market for found in markets), str(error))
    return errors


async def _heal_one(pipeline: Pipeline, found: MissingMarket, since_us: int) -> str:
    pipeline.history.check_listed(found.market.symbol)
    say(f"{found.market.exchange} {found.market.symbol}: fetching what is missing")
    await pipeline.repairer.fill_gaps(found.market, since_us=since_us)
    report = await pipeline.backfill.candles.fill(
        found.market.symbol, found.timeframe, found.start_us, min(found.end_us, now_us()),
        await pipeline.history.clock_us(),
    )  # fmt: skip
    return report.error


def _json(found: MissingMarket) -> dict[str, Any]:
    return {
        "exchange": found.market.exchange,
        "symbol": found.market.symbol,
        "start": format_us(found.start_us),
        "end": format_us(found.end_us),
        "candles": {
            name: [missing_json(run, TIMEFRAMES[name]) for run in runs]
            for name, runs in found.candles.items()
            if runs
        },
        "trades": [_gap_json(gap) for gap in found.gaps],
        "error": found.error or None,
    }


def _gap_json(gap: Gap) -> dict[str, Any]:
    return {
        "first_trade_id": gap.first_trade_id,
        "last_trade_id": gap.last_trade_id,
        "start": format_us(gap.start_time_us),
        "end": format_us(gap.end_time_us),
        "status": gap.status,
        "reason": gap.reason,
    }


def _tell(found: MissingMarket) -> None:
    window = f"{format_us(found.start_us)} to {format_us(found.end_us)}"
    if found.error:
        typer.echo(f"{found.market.exchange} {found.market.symbol}: {found.error}", err=True)
    if not found.gaps and not any(found.candles.values()):
        typer.echo(f"{found.market.exchange} {found.market.symbol}: complete from {window}")
        return
    typer.echo(f"{found.market.exchange} {found.market.symbol} from {window}:")
    for name, runs in found.candles.items():
        for run in runs:
            note = "" if run.reason in FINAL_REASONS else "; alpha-pulse gaps --heal fetches it"
            typer.echo(f"  {name}: {missing_line(run, TIMEFRAMES[name])}{note}")
    for gap in found.gaps:
        typer.echo(
            f"  trades {gap.first_trade_id or '?'} to {gap.last_trade_id or '?'}, "
            f"{format_us(gap.start_time_us)} to {format_us(gap.end_time_us)}, {gap.status}: "
            f"{gap.reason}"
        )
