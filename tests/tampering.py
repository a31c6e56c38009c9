"""Every way in which one tensor of a file can be another than the one that was written."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def tampered(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield what was done and the tensors after it: each in turn left out, renamed, of another shape or type."""
    for name, tensor in tensors.items():
        others = {other: kept for other, kept in tensors.items() if other != name}
        yield f"{name} is left out", others
        yield f"{name} has another name", {**others, f"{name}\nx": tensor}
        for other in (tensor[None], tensor.reshape(-1)[1:]):
            yield f"{name} has the shape {tuple(other.shape)}", {**others, name: other.contiguous()}
        for kind in (torch.float64, torch.bool):
            yield f"{name} is {kind}", {**others, name: tensor.to(kind)}
    yield "there is one more", {**tensors, "more": torch.zeros(2)}
    yield "there is none", {}
