"""What every test has: quick, repeatable hypothesis; no telemetry; the development data sets, where they are."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports torch. Two processes test at once, and threads that wait for each other's cores take ten
# times as long; a child process that trains with more says so itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything imports mlflow.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# The same examples in every run, so that a red test is about the change at hand; busy machines have no deadline.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

# Started in the background of a script, a process is told to ignore Ctrl-C, and so are all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def first_use(tmp_path_factory):
    """A folder in which a fresh process has tracked something for the first time, and what it printed."""
    folder = tmp_path_factory.mktemp("first use")
    script = (
        "from recae.tracking import Tracker\n"
        "tracker = Tracker('first')\n"
        "with tracker.run('only'): pass\n"
        "print(repr(tracker.lost), tracker.uri)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return folder, done


@pytest.fixture(scope="session")
def make_store(first_use) -> Callable[[Path], Path]:
    """Give a folder a store that needs no migration any more: that takes seconds."""

    def make(folder: Path) -> Path:
        (folder / "mlflow").mkdir()
        shutil.copyfile(first_use[0] / "mlflow" / "mlflow.db", folder / "mlflow" / "mlflow.db")
        return folder

    return make


@pytest.fixture
def here(make_store, tmp_path, monkeypatch):
    """A current folder with a store."""
    monkeypatch.chdir(make_store(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path
