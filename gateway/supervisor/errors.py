"""What can keep the stack from running. Each error is one line that ends with what to do."""

from pathlib import Path


class StackError(Exception):
    """The stack cannot run."""


class StackRunningError(StackError):
    """Another supervisor holds the data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        by = f" (process {pid})" if pid else ""
        super().__init__(
            f"a stack runs on {data_dir} already{by}; use it (`meshyard status`), stop it, or choose another --data-dir"
        )
        self.data_dir = data_dir
        self.pid = pid


class StackPortTakenError(StackError):
    """The gateway's port was asked for and is taken."""

    def __init__(self, port: int, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"MESHYARD_GATEWAY_PORT: port {port} is taken{by}; choose a free one or unset it")
        self.port = port


class RoleFailedError(StackError):
    """A role ended again and again before it was ready."""

    def __init__(self, role: str, reason: str, log_file: Path) -> None:
        super().__init__(f"{role} does not start: {reason}; its log is {log_file}")
        self.role = role
        self.reason = reason
        self.log_file = log_file


class StartTimeoutError(StackError):
    """The stack did not accept requests in time."""

    def __init__(self, seconds: float, missing: str, log_dir: Path) -> None:
        super().__init__(f"the stack does not accept requests after {seconds:.0f} s ({missing}); logs are in {log_dir}")
        self.missing = missing
