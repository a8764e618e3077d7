"""What a storage, a fetcher and a provider of one's own must do to work with the managers."""

from alpha_pulse.contracts.interfaces import Fetcher, OnEvents, Provider, Storage

__all__ = ["Fetcher", "OnEvents", "Provider", "Storage"]
