"""What a reader of a run wants to know about the code and the machine that made it."""

import os
import platform
import subprocess

import mlflow
import torch

from recae import __version__


def system_facts() -> dict[str, str]:
    """Return versions and hardware, as tags."""
    return {
        "system.python": platform.python_version(),
        "system.platform": platform.platform(),
        "system.cpus": str(os.cpu_count()),
        "system.cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system.torch": torch.__version__,
        "system.mlflow": mlflow.__version__,
        "system.recae": __version__,
    }


def git_revision() -> dict[str, str]:
    """Return the current folder's commit, and whether tracked files differ from it, under the tags MLflow looks for.

    Empty where there is no repository, no commit, or no git.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return {}
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(bool(changes)).lower()}


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
