"""The log of a role: events with fields on stderr, one line each (extra `roles`: structlog).

JSON where nobody looks at a terminal. What libraries say through `logging` comes in the same form,
from warnings on.
"""

import logging
import os
import sys

import structlog

_OWN: tuple[structlog.types.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logs(level: int = logging.INFO) -> None:
    """Send the process's log to stderr.

    Args:
        level: the lowest level of our own events; libraries speak from warnings on.
    """
    renderer = _renderer()
    structlog.configure(
        processors=[*_OWN, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line: several processes may share a file.
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[*_OWN, structlog.stdlib.add_logger_name, _with_trace],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # aiokafka makes a log record for every batch although nobody reads it (measured: 8 % of the
    # CPU), also where Faust sets another level for everything.
    logging.getLogger("aiokafka").setLevel(logging.WARNING)


def _renderer() -> structlog.types.Processor:
    if sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
    return structlog.processors.JSONRenderer()


def _with_trace(
    logger: logging.Logger, name: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    # A console shows traces by itself; a line of JSON has to hold them.
    if sys.stderr.isatty():
        return event
    return structlog.processors.format_exc_info(logger, name, event)
