"""A domain for each test module."""

from collections.abc import Iterator

import pytest

from tests.integration.worker.yard import Yard


@pytest.fixture(scope="module")
def yard(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The scheduler's side of a worker."""
    made = Yard(kafka_bootstrap, tmp_path_factory.mktemp("yard"))
    yield made
    made.close()
