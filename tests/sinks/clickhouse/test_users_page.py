"""The users that docs/security.md makes are the ones that the one-shot set-up makes."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from alpha_pulse.contracts.config import Config
from alpha_pulse.sinks.clickhouse.users import READER_SETTINGS, user_statements

PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text()


def test_the_rights_on_the_page_are_those_of_the_set_up() -> None:
    config = Config()
    users = ("writer", "migrator", "reader")
    passwords: dict[str, Any] = {f"{user}_password": "x" for user in users}
    config = replace(config, setup=replace(config.setup, **passwords))
    made = [line.replace("`", "") for line in user_statements(config) if line.startswith("GRANT")]
    shown = re.findall(r"^(GRANT .*);$", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(made)
    assert f"SETTINGS {READER_SETTINGS};" in PAGE
