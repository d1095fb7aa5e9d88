"""Structured logs: one line an event, on standard error. JSON, or for people with MESHYARD_LOG_FORMAT=console.

Never in a log: prompts, keys, signed links. The ids are enough to find the rest.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping

import structlog


class Sparing(logging.Filter):
    """Lets the first record of a kind through, then at most one in `seconds`: a client that cannot reach its broker
    says so twenty times a second. The kind is the text with its digits left out."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = re.sub(r"\d+", "", record.getMessage())[:200]
        if record.created - self._last.get(kind, float("-inf")) < self._seconds:
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[kind] = record.created
        return True


def configure_logs(role: str, env: Mapping[str, str] = os.environ) -> None:
    """Sets up structlog and the standard library's logging for a role's process."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if env.get("MESHYARD_LOG_FORMAT") == "console"
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    # Libraries (Faust, aiokafka, uvicorn) log through the standard library: the same lines, warnings and above.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("librdkafka").addFilter(Sparing(5.0))
