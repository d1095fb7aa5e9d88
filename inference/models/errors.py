"""What can go wrong with a model before it makes anything."""


class ModelError(Exception):
    """A model cannot be used."""


class ModelUnavailableError(ModelError):
    """Something that the model needs is not installed, or nobody knows the model."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"{model}: {reason}")
        self.model = model
        self.reason = reason


class WeightsCorruptError(ModelError):
    """A weights file is not the one that was published."""

    def __init__(self, path: str, expected_sha256: str, found_sha256: str) -> None:
        super().__init__(f"{path}: SHA-256 is {found_sha256}, expected {expected_sha256}")
        self.path = path
        self.expected_sha256 = expected_sha256
        self.found_sha256 = found_sha256
