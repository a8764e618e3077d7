"""`SQLAlchemyStorage` as part of the library; see `alpha_pulse.sinks.library.sql_storage`."""

from alpha_pulse.data_pipeline import SQLAlchemyStorage, StorageConfig

__all__ = ["SQLAlchemyStorage", "StorageConfig"]
