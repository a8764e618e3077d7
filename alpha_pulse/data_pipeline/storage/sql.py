"""`SQLAlchemyStorage` as part of the library; its home is `alpha_pulse.sinks.sql_storage`."""

from alpha_pulse.data_pipeline import SQLAlchemyStorage, StorageConfig

__all__ = ["SQLAlchemyStorage", "StorageConfig"]
