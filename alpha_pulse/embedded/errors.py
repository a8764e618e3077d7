"""What can go wrong when servers run on this machine: one line each, with the way out."""

from alpha_pulse.contracts.errors import AlphaPulseError


class EmbeddedRuntimeError(AlphaPulseError):
    """A server of the embedded runtime could not be had; the message says what to do."""


class DownloadError(EmbeddedRuntimeError):
    """A file that the first start needs could not be fetched whole."""


class DataDirError(EmbeddedRuntimeError):
    """The data directory is in use, not writable, or has too little disk."""


class PortError(EmbeddedRuntimeError):
    """A port that was asked for belongs to somebody else."""


class ChildDiedError(EmbeddedRuntimeError):
    """A server ended on its own; the message carries the last lines of its log."""
