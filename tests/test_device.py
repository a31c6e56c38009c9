"""Devices by name, and what memory they have left."""

from pathlib import Path

import pytest
import torch

import recae.device
from recae.device import _available_to_container, available_memory, require_memory, resolve_device
from recae.errors import DeviceError, ModelError


def test_a_device_is_found_by_name() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="unknown device 'gpu'; known: auto, cpu, cuda"):
        resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_cuda_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="no CUDA device here; pass --device cpu"):
        resolve_device("cuda")


def test_available_memory_is_some_bytes_or_unknown() -> None:
    available = available_memory("cpu")
    assert available is None or available > 0


def test_what_does_not_fit_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recae.device, "available_memory", lambda device: 3_000_000_000)
    require_memory("cpu", 3_000_000_000, "a batch", "lower batch_size")
    with pytest.raises(
        ModelError, match=r"^a batch needs 3\.1 GB on cpu, and 3\.0 GB are available; lower batch_size$"
    ):
        require_memory("cpu", 3_100_000_000, "a batch", "lower batch_size")


def test_a_machine_that_does_not_tell_its_memory_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recae.device, "available_memory", lambda device: None)
    require_memory("cpu", 10**18, "everything", "think again")


def test_a_container_leaves_its_limit_less_what_it_cannot_drop(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 30\n")
    assert _available_to_container(tmp_path) == 480


@pytest.mark.parametrize("limit", ["max\n", None, "?"])
def test_a_container_without_a_limit_leaves_what_the_machine_has(limit: str | None, tmp_path: Path) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.stat").write_text("inactive_file 0\n")
        (tmp_path / "memory.current").write_text("0\n")
    assert _available_to_container(tmp_path) is None
