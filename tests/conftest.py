"""What every test has: quick, repeatable hypothesis; no telemetry; the development data sets, where they are."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports mlflow.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# The same examples in every run, so that a red test is about the change at hand; busy machines have no deadline.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Find a development data set by its file name, or skip the test: none of them ships with the project."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"{name} is a development data set, and not on this machine")
        return path

    return find
