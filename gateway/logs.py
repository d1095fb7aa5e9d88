"""How the gateway and the supervisor log: as every role does."""

from streams.logs import configure_logs


def configure(log_format: str, role: str = "up") -> None:
    """Structured lines on standard error; log_format: json or console."""
    configure_logs(role, {"MESHYARD_LOG_FORMAT": log_format})
