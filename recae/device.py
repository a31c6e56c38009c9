"""Which device work runs on, and whether its memory will do."""

import os
from pathlib import Path

import torch

from recae.errors import DeviceError, ModelError

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda" for a name in DEVICES; "auto" is CUDA where there is one."""
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device here; pass --device cpu, or --device auto to use one where there is one")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def available_memory(device: str) -> int | None:
    """Return how many bytes can still be allocated on a device, or None where the system does not tell."""
    if device.startswith("cuda"):
        idle_in_torch = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle_in_torch
    sizes = (_available_to_container(), _available_to_process(), _available_on_machine())
    known = [size for size in sizes if size is not None]
    return min(known, default=None)


def require_memory(device: str, needed: int, what: str, instead: str) -> None:
    """Raise ModelError where a device cannot give `needed` bytes for `what`; `instead` says what to do about it.

    To be called before anything is allocated. A system that does not tell what it has is trusted.
    """
    available = available_memory(device)
    if available is not None and needed > available:
        raise ModelError(
            f"{what} needs {needed / 1e9:,.1f} GB on {device}, and {available / 1e9:,.1f} GB are available; {instead}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated: numpy's, CUDA's, or torch's on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("allocate memory", "out of memory", "ALLOC_FAILED")  # of torch, of CUDA, of its libraries
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _available_on_machine() -> int | None:
    try:
        with Path("/proc/meminfo").open() as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        # Where the system does not say what is free, what there is is the bound.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _available_to_process() -> int | None:
    """Return what a limit of the address space (`ulimit -v`) leaves."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - pages * resource.getpagesize())


def _available_to_container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what a control group (version 2) leaves; file pages it can drop count as available."""
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        pages = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        used = int((root / "memory.current").read_text())
        return max(0, int(limit) - used + int(pages.get("inactive_file", 0)) + int(pages.get("active_file", 0)))
    except (OSError, ValueError):
        return None
