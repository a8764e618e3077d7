"""Storages of the library: a database of one's own, or the pipeline."""
