"""Settings of `SQLAlchemyStorage`, apart from it: they need no database driver."""

from dataclasses import dataclass

from alpha_pulse.contracts.errors import ConfigError


@dataclass(frozen=True)
class StorageConfig:
    """How a database is used.

    Attributes:
        batch_size: rows of one statement and transaction.
        max_connections: pool size; more callers wait.
        timeout: seconds for a call, the wait for a connection included.

    Raises:
        ConfigError: one of them is not above 0.
    """

    batch_size: int = 1000
    max_connections: int = 5
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_connections", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"expected {name} above 0, found {getattr(self, name)!r}")
