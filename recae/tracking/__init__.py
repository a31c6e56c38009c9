"""What an experiment tells MLflow; the only package that imports mlflow (which takes a second: import it when needed).

tracker.py   Tracker and Run: parameters, figures, data, files, and what happens when the server is gone
logged.py    a model directory as a model that MLflow can load and serve
served.py    the code that MLflow keeps with such a model, and runs
facts.py     what is worth knowing about the code and the machine
"""

import os

# These must stand before mlflow is imported; a value of the user's own wins.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow would copy the lock file of whatever project the user stands in into every model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # The terminal is ours.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is gone is noticed within a minute (MLflow's own defaults: 7 retries, 120 seconds each).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

from recae.tracking.tracker import Run, Tracker  # noqa: E402

__all__ = ["Run", "Tracker"]
