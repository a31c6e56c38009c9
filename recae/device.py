"""Which device work runs on."""

import torch

from recae.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda" for a name in DEVICES; "auto" is CUDA where there is one."""
    if name not in DEVICES:
        raise DeviceError(f"unknown device '{name}'; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device here; pass --device cpu, or --device auto to use one where there is one")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
