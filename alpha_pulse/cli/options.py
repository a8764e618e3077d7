"""What several commands are given in the same way."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="ALPHA_PULSE_CONFIG",
        help="TOML file; the environment goes over it.",
    ),
]
