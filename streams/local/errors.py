"""What can keep the local broker from running. Each error is one line that ends with what to do."""

from pathlib import Path


class LocalBrokerError(Exception):
    """The local broker cannot run."""


class DownloadFailedError(LocalBrokerError):
    """A jar could not be fetched: no network, a proxy in between, or a repository without it."""

    def __init__(self, coordinate: str, repository: str, reason: str) -> None:
        super().__init__(
            f"cannot fetch {coordinate} from {repository}: {reason}; check the network (or HTTPS_PROXY), "
            "or set MESHYARD_MAVEN_URL to a Maven mirror that you can reach, and start again"
        )
        self.coordinate = coordinate
        self.repository = repository
        self.reason = reason


class CorruptDownloadError(LocalBrokerError):
    """A fetched jar is not the one that the lock names. It was removed: the next start fetches it again."""

    def __init__(self, coordinate: str, expected_sha256: str, found_sha256: str) -> None:
        super().__init__(
            f"{coordinate} arrived damaged (SHA-256 {found_sha256[:12]}..., expected {expected_sha256[:12]}...) and "
            "was removed; start again to fetch it anew, and if it happens again ask who runs your proxy or mirror"
        )
        self.coordinate = coordinate
        self.expected_sha256 = expected_sha256
        self.found_sha256 = found_sha256


class DiskFullError(LocalBrokerError):
    """Too little space is left for the jars or for the broker's data."""

    def __init__(self, path: Path, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"the disk of {path} has {free_bytes / 1e6:.0f} MB left and {needed_bytes / 1e6:.0f} MB are needed; "
            "free some space, or choose another disk with --data-dir or MESHYARD_CACHE_DIR"
        )
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class PortTakenError(LocalBrokerError):
    """Another process listens on a port of the broker's."""

    def __init__(self, port: int, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"port {port} is taken{by}; stop that process, or start with --port and a free port")
        self.port = port
        self.holder = holder


class BrokerRunningError(LocalBrokerError):
    """A live broker holds the data directory."""

    def __init__(self, data_dir: Path, pid: int | None, bootstrap: str | None) -> None:
        owner = f"process {pid}" if pid else "another process"
        where = f" at {bootstrap}" if bootstrap else ""
        super().__init__(
            f"{data_dir} is in use: {owner} runs a broker on it{where}; use that one, stop it, "
            "or choose another --data-dir"
        )
        self.data_dir = data_dir
        self.pid = pid
        self.bootstrap = bootstrap


class StartFailedError(LocalBrokerError):
    """The broker's process ended, or did not answer in time."""

    def __init__(self, reason: str, log_file: Path, tail: str) -> None:
        last = f" ({tail})" if tail else ""
        super().__init__(f"the broker {reason}{last}; its log is {log_file}")
        self.reason = reason
        self.log_file = log_file
        self.tail = tail
