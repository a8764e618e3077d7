"""The page beside a running pipeline: a reader of its own, and its address for people."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import typer

from alpha_pulse.contracts.config import ClickHouseConfig, Config, PageConfig
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.embedded.front.users import Login, Role
from alpha_pulse.page.server import shown_page

PAGE_USER = "page"


def page_reader(settings: Config) -> tuple[PageConfig, list[Login]]:
    """Return the page's settings with a reader in them, and the users the own ClickHouse needs.

    Everybody else stays what they are without users: `default`, an administrator on this machine.
    A given ClickHouse has its own users, and [page] clickhouse_user names one of them.
    """
    page = settings.page
    is_given = settings.clickhouse.url != ClickHouseConfig().url
    if is_given or page.clickhouse_user or not page.enabled:
        return page, []
    reader = Login(PAGE_USER, secrets.token_urlsafe(24), Role.READER)
    page = replace(page, clickhouse_user=reader.name, clickhouse_password=reader.password)
    return page, [Login("default", "", Role.ADMIN), reader]


@contextlib.asynccontextmanager
async def page_beside(config: Config, page: PageConfig) -> AsyncIterator[None]:
    """Show the page as long as the block lasts and say where; without one, say why and go on.

    page: instead of the configuration's own, which the roles are given: no password of ours there.
    """
    async with contextlib.AsyncExitStack() as stack:
        if page.enabled:
            # What the page says stays away from what the command prints.
            configure_logs()
            try:
                address = await stack.enter_async_context(shown_page(replace(config, page=page)))
            except (AlphaPulseError, OSError) as error:
                typer.echo(f"no page: {error}", err=True)
            else:
                typer.echo(f"candles in a browser: {address}", err=True)
        yield
