"""Sends this process's log lines to a file, so that the screen stays the command's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog


@contextmanager
def log_to_file(file: Path) -> Iterator[None]:
    """structlog lines as JSON, appended to a file while the context is open."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", buffering=1) as out:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.WriteLoggerFactory(out),
        )
        try:
            yield
        finally:
            structlog.reset_defaults()
