"""What the benchmarks share: the machine in a line, work timed in turn, memory of a process of its own, a table.

The machines these run on are noisy, so nothing is compared between runs: `in_turn` takes one of each, then the next of
each, and what is reported are medians and their ratios.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def machine(*packages: str) -> str:
    """Return processor, threads, memory, Python and the versions of packages, in one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {versions}"


def in_turn(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds each piece of work took, `repeats` times, one of each after the other; one more to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, run in work.items():
            begun = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def median(seconds: Sequence[float]) -> float:
    """Return the middle one: one slow run of a noisy machine does not move it."""
    return statistics.median(seconds)


def in_child(
    script: Path, *arguments: str, environment: Mapping[str, str] = {}, python: str | Path = sys.executable
) -> dict[str, Any]:
    """Run a benchmark script again in a process of its own; return the JSON object it prints as its last line."""
    done = subprocess.run(
        [str(python), str(script), *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def peak_resident() -> int:
    """Return the most bytes this process has had resident, pages of mapped files included (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Make `peak_resident` start again from what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
