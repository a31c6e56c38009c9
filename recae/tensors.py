"""Which tensors something consists of: their names, types and shapes."""

from collections.abc import Mapping

import torch
from torch import Tensor

Form = tuple[torch.dtype | tuple[torch.dtype, ...], tuple[int | str, ...]]
"""A type, or those it may be, and a shape, in which a word stands for one size, the same wherever the word is."""


def forms_of(tensors: Mapping[str, Tensor]) -> dict[str, Form]:
    """Return the type and the shape of each tensor."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def require_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Form]) -> None:
    """Raise ValueError, with a line that names the first that differs, unless these are the tensors that are wanted."""
    sizes: dict[str, int] = {}
    for name, (kinds, shape) in wanted.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        there = found[name]
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if there.dtype not in kinds:
            known_kinds = " or ".join(str(kind) for kind in kinds)
            raise ValueError(f"{name} is {there.dtype}, and {known_kinds} is wanted")
        fits = len(shape) == there.ndim and all(
            size == (sizes.setdefault(known, size) if isinstance(known, str) else known)
            for known, size in zip(shape, there.shape, strict=True)
        )
        if not fits:
            wanted_shape = ", ".join(str(sizes.get(str(known), known)) for known in shape)
            raise ValueError(f"{name} has the shape {tuple(there.shape)}, and ({wanted_shape}) is wanted")
    unknown = next((name for name in found if name not in wanted), None)
    if unknown is not None:
        raise ValueError(f"{unknown[:60]!r} is there, and unknown")
