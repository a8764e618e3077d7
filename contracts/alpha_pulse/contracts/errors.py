"""Errors of the whole pipeline, under one base.

Each message says what was expected, what was found, where, and what to do next.
"""


class AlphaPulseError(Exception):
    """Base of every error that this project raises on purpose."""


class ValidationError(AlphaPulseError):
    """A value, message or argument breaks its contract."""


class ConfigError(AlphaPulseError):
    """A setting is unknown, missing or out of range."""


class DataFetchError(AlphaPulseError):
    """An exchange did not give what was asked of it."""


class StorageError(AlphaPulseError):
    """A storage refused a read or a write, or could not be reached."""


class KafkaError(AlphaPulseError):
    """Kafka could not be reached, or refused what was asked of it."""
