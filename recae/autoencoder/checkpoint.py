"""A training in the middle, as one safetensors file that appears whole or not at all.

The tensors are the present weights, the best ones where they are others, Adam's state and the random generator's. The
metadata holds, as JSON, how far the training got and a fingerprint of what is trained on what.

On a CPU, a training that goes on from its checkpoint ends with the same bits as one that was never stopped, given the
same torch, the same kind of processor, the same number of threads, and that memory runs out in neither. Otherwise it
goes on just as well, but a sum of floats may be taken in another order; the metadata says which torch and how many
threads wrote the file.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import ArtifactError
from recae.files import whole_file
from recae.tensors import Form, require_tensors

FORMAT = 2
METADATA_KEY = "recae_checkpoint"
REMEDY = "delete it to start afresh, or give another place"

Fingerprint = Mapping[str, Any]
"""What makes a training the one it is, in plain values: hyper-parameters, seed, digests of the data, device."""


@dataclass
class Progress:
    """How far a training is; epochs count from 1, so the best one is 0 before there is any."""

    epoch: NonNegativeInt = 0
    updates: Annotated[NonNegativeInt, Field(lt=2**53)] = 0
    best: float | None = None
    best_epoch: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


class _Content(BaseModel):
    """What the metadata says."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    format: int
    fingerprint: dict[str, Any]
    progress: Progress
    torch: str
    threads: int

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        told = self.progress
        if not told.best_epoch <= told.epoch == len(told.curve):
            raise ValueError(f"{told.epoch} epochs, the best {told.best_epoch}, and a curve of {len(told.curve)}")
        return self


def save_checkpoint(path: Path, fingerprint: Fingerprint, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint at `path`; OutputError on a full disk, and then the previous one is still there."""
    content = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "progress": asdict(progress),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    with whole_file(path, overwrite=True) as draft:
        save_file(dict(tensors), draft, metadata={METADATA_KEY: json.dumps(content)})


def load_checkpoint(
    path: Path, fingerprint: Fingerprint, wanted: Callable[[Progress], Mapping[str, Form]]
) -> tuple[Progress, dict[str, Tensor]]:
    """Return the progress and the tensors, on the CPU, of a checkpoint of the same training.

    `wanted` tells which tensors there are after so much progress. Raises ArtifactError for a file that is truncated,
    none of ours, or of a training with another fingerprint, and for one that holds anything else than it should.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})[METADATA_KEY]
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        format = json.loads(text)["format"]
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path) from error
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    if format != FORMAT:
        raise ArtifactError(f"{path}: a checkpoint of format {_short(format)}, and this recae reads {FORMAT}; {REMEDY}")
    try:
        content = _Content.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "progress"
        raise damaged(path, f"{_short(key)}: {problem['msg'].removeprefix('Value error, ')}") from error
    if differences := _differences(content.fingerprint, json.loads(json.dumps(fingerprint))):
        raise ArtifactError(f"{path} is the checkpoint of another training ({'; '.join(differences)}); {REMEDY}")
    try:
        require_tensors(tensors, wanted(content.progress))
    except ValueError as error:
        raise damaged(path, str(error)) from error
    return content.progress, tensors


def damaged(path: Path, reason: str = "") -> ArtifactError:
    """Return the error that a file is no whole checkpoint."""
    return ArtifactError(f"{path} is no whole checkpoint of a training{reason and f' ({reason})'}; {REMEDY}")


def digest(matrix: csr_matrix) -> str:
    """Return the SHA-256 of a matrix in hexadecimal, whatever types its indices and values are stored in."""
    hashed = hashlib.sha256(repr(tuple(map(int, matrix.shape))).encode())
    for part, kind in ((matrix.indptr, np.int64), (matrix.indices, np.int32), (matrix.data, np.float32)):
        hashed.update(np.ascontiguousarray(part, dtype=kind).data)
    return hashed.hexdigest()


def _differences(there: Fingerprint, here: Fingerprint) -> list[str]:
    return [
        f"{key} is {_short(there.get(key))} there, {_short(here.get(key))} here"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
