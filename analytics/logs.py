"""Log lines of the analytics processes: one JSON object an event on standard error, tracebacks without values."""

import sys

import structlog


def configure_logs() -> None:
    """To be called once, by `__main__`. Local variables stay out of tracebacks: they hold queries and passwords."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
