"""What this machine can do for recae, and what is amiss."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from recae.device import available_memory

PACKAGES = (
    "recae",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "implicit",
    "mlflow",
    "scikit-learn",
    "safetensors",
)


def examine() -> dict[str, str]:
    """Return facts by name: versions, processor, memory, disk, GPU, tracking store; a missing package says so."""
    facts = {"python": platform.python_version(), "system": platform.platform()}
    facts |= {package: _version(package) for package in PACKAGES}
    facts["cores"] = f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()}"
    memory = available_memory("cpu")
    facts["memory available"] = "unknown" if memory is None else f"{memory / 1e9:.1f} GB"
    facts["disk free here"] = f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB"
    facts["gpu"] = _gpus()
    facts["tracking store"] = os.environ.get("MLFLOW_TRACKING_URI") or str(Path("mlflow") / "mlflow.db")
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"missing; pip install {package}"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none; training runs on the processor"
    devices = range(torch.cuda.device_count())
    return ", ".join(
        f"{torch.cuda.get_device_name(device)} ({torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB)"
        for device in devices
    )
