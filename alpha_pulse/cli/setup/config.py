"""`alpha-pulse config show | check`: the settings as a role would have them, without secrets."""

from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.contracts.config import Config, load_with_places, redacted
from alpha_pulse.contracts.config_sources import DEFAULT, Key, Setting, list_settings
from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.sinks.clickhouse.client import connection_arguments
from alpha_pulse.sinks.clickhouse.statements import placeholders

app = typer.Typer(name="config", help="The settings: what they are, and whether they can be.")


@app.command()
def show(
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is no default.")] = False,
) -> None:
    """Show every setting and where it comes from, as TOML; a secret that is set is `***`."""
    settings, places = load_with_places(config)
    if json:
        shown: dict[str, Any] = redacted(settings)
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(as_toml(settings, places, changed=changed))


@app.command()
def check(config: ConfigFile = None) -> None:
    """Check the file, the environment, and the files that they name; nothing is connected to.

    Exit code 1 when something is wrong; each thing that is wrong is one line on stderr.
    """
    settings, places = load_with_places(config)
    problems = []
    for part in (
        lambda: client_arguments(settings.kafka, "check"),
        lambda: connection_arguments(settings.clickhouse),
        lambda: placeholders(settings),
    ):
        try:
            part()
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    typer.echo(f"{len(list_settings(settings))} settings, {len(places)} of them set; all can be")


def as_toml(settings: Config, places: dict[Key, str], *, changed: bool = False) -> str:
    """Return settings as TOML that can be loaded again, each with its place as a comment.

    A secret that is set is a comment itself: it belongs into the environment.
    """
    lines: list[str] = []
    section = ""
    for setting in list_settings(settings):
        place = places.get(setting.key, DEFAULT)
        if changed and place == DEFAULT:
            continue
        if setting.section != section:
            section = setting.section
            lines += ["", f"[{section}]"]
        # What is hidden here must not be taken for the value when the file is loaded again.
        hidden = "" if setting.shown == setting.value else "# "
        lines.append(f"{hidden}{setting.name} = {_toml(setting)}  # {place}")
    return "\n".join(lines).strip()


def _toml(setting: Setting) -> str:
    value = setting.shown
    # JSON's strings, numbers and lists of strings are TOML's too.
    return orjson.dumps(value).decode().replace('","', '", "')
