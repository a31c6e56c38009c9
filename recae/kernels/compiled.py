"""Whether kernels written in Triton can be compiled for a device. No other module asks."""

import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch


@cache
def can_compile(device: torch.device) -> bool:
    """Return whether Triton is installed, with what it starts kernels by (a C compiler and the headers of Python), and
    the device has bfloat16.

    CUDA builds of torch bring Triton along. Where this says no, the same work is done by torch's own operations.
    """
    compiler = os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc")
    return (
        find_spec("triton") is not None
        and compiler is not None
        and Path(sysconfig.get_path("include"), "Python.h").exists()
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
