"""Whether what a model has learned is finite, and where it is not, what to change."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import Diverged

FAR = 100.0
"""How many times as large as its default, or as 1, a setting is when it is among those to blame."""

LARGE = 1e4
"""Values beyond this are among those to blame."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers of some tensors are finite; a device is waited for once."""
    # Of the least and the largest, because `isfinite` of a large table takes as much memory again.
    ends = [torch.stack(torch.aminmax(tensor.detach())).isfinite().all() for tensor in tensors if tensor.numel()]
    return not ends or bool(torch.stack(ends).all())


def require_finite(model: Any, histories: csr_matrix) -> None:
    """Raise Diverged unless all numbers that a model has learned from histories are finite."""
    if not all_finite(model.state().values()):
        raise Diverged(f"{model.name}: what it has learned is not finite; {way_out(model, histories)}")


def way_out(model: Any, histories: csr_matrix) -> str:
    """Return what to change about a model, or the histories it learns from, for its numbers to stay finite."""
    usual = {field.name: field.default for field in fields(model) if isinstance(field.default, float)}
    now = {name: getattr(model, name) for name in usual}
    blamed = [name for name in usual if name == "learning_rate" or now[name] > FAR * max(1, usual[name])]
    ways = [f"lower {' or '.join(f'{name} (it is {now[name]:g})' for name in blamed)}"] if blamed else []
    largest = float(np.abs(histories.data).max(initial=0))
    if not np.isfinite(largest):
        return "give values that are finite numbers"
    if largest > LARGE:
        ways.append(f"scale the values down (they reach {largest:g})")
    return ", or ".join(ways) or "give settings nearer to their defaults"
