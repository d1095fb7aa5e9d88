"""One domain for all tests of the worker; each test has slots and jobs of its own."""

from collections.abc import Iterator

import pytest

from tests.integration.worker.yard import Yard


@pytest.fixture(scope="package")
def yard(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The scheduler's side of a worker."""
    made = Yard(kafka_bootstrap, tmp_path_factory.mktemp("yard"))
    yield made
    made.close()
