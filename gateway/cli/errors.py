"""How commands fail: one line on stderr, and an exit code."""


class CommandError(Exception):
    """A command could not do what was asked; exit code 1."""

    exit_code = 1


class UsageError(CommandError):
    """What was given cannot be used; exit code 2. The message names the field and the remedy."""

    exit_code = 2

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field = field


class ApiError(CommandError):
    """The gateway refused: its problem in one line."""

    def __init__(self, status: int, code: str, detail: str, suggestion: str = "") -> None:
        more = f"; {suggestion}" if suggestion else ""
        super().__init__(f"the gateway answered {status} {code}: {detail}{more}")
        self.status = status
        self.code = code
