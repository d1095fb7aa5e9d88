"""Scrubs the environment before anything of ours reads it, and wires the fixtures of `tests/support`."""

import importlib.util
import os

KEPT = ("MESHYARD_CACHE_DIR", "MESHYARD_MAVEN_URL", "MESHYARD_TEST_")

for name in list(os.environ):
    if name.startswith("MESHYARD_") and not name.startswith(KEPT):
        del os.environ[name]

SUPPORT = ("tests.support.kafka", "tests.support.clickhouse")

pytest_plugins = [name for name in SUPPORT if importlib.util.find_spec(name) is not None]
