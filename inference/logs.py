"""Log lines of the workers and their engines: structured, on the standard error, with the id of the web request they serve."""

from __future__ import annotations

import logging
import os
from logging.config import dictConfig

import structlog

_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def configure() -> None:
    """Sets logging up for this process from LOG_LEVEL and LOG_JSON, in the form the store uses."""
    as_json = os.environ.get("LOG_JSON", "").lower() in {"1", "true", "yes", "on"}
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]  # no local values in logs
    )
    structlog.configure(
        processors=[*_PROCESSORS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": _PROCESSORS,
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
                }
            },
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL") or "INFO"},
        }
    )
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)  # one line per task of its own; ours say more
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
