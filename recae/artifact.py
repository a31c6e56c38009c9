"""A fitted model as a directory that needs nothing else to be used: no training data, no pickle.

    model.json           what the model is and where it comes from (ModelCard), with the checksums of the other files
    weights.safetensors  everything `fit` learned
    items.parquet        item_id and count of training interactions, in column order, with title and whatever is known

Every byte that matters is under a checksum, `model.json` under its own: a damaged directory is refused, never half
believed. The directory is written beside its place and renamed, so it is whole or absent.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from torch import Tensor

from recae import __version__
from recae.device import is_out_of_memory, resolve_device
from recae.errors import ArtifactError, InputError, ModelError
from recae.files import sha256, whole_directory
from recae.interactions import UNKNOWN, IdMap, Interactions, Preparation
from recae.models import build
from recae.models.base import Embedder, Recommender, hyper_parameters_of

FORMAT = 1
"""The format this recae writes and reads; a change that an older recae would misread raises it."""

CARD, WEIGHTS, ITEMS = "model.json", "weights.safetensors", "items.parquet"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TrainingData(_Part):
    """What the model was trained on: the digest of the interactions, and how many there were."""

    digest: str
    users: NonNegativeInt
    items: NonNegativeInt
    interactions: NonNegativeInt


class ModelCard(_Part):
    """Everything in model.json but its own checksum.

    `preparation` is how the training events became interactions, for histories to be made the same way; `files` maps
    each other file to its SHA-256.
    """

    format: int
    recae: str
    model: str
    hyper_parameters: dict[str, Any]
    seed: int
    data: TrainingData
    preparation: Preparation
    training: dict[str, Any]
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model that can be used, with the ids of its columns.

    `item_table` has a row per item in column order: count, then title and whatever else is known.
    `digest` is the SHA-256 of model.json. As that holds the checksums of the weights and of the items, the digest
    stands for the whole directory; it covers the training summary too, so a second training has another digest.
    """

    model: Recommender
    items: IdMap
    item_table: pd.DataFrame
    card: ModelCard
    digest: str

    def histories(self, item_ids: Sequence[Sequence[int | str]]) -> csr_matrix:
        """Return histories, users × items, of lists of item ids, one a user; ids the model does not know drop out.

        `items.to_index(ids)` tells which those are; a history in which nothing is left says nothing of its user.
        Raises InputError for what is no list of lists, such as a single user's list.
        """
        for user, ids in enumerate(item_ids):
            if isinstance(ids, str | bytes) or not isinstance(ids, Collection):
                raise InputError(
                    f"history {user} is {str(ids)[:60]!r} and no list of item ids; give a list of lists, one a user"
                )
        users = np.repeat(np.arange(len(item_ids)), [len(ids) for ids in item_ids])
        columns = self.items.to_index(list(chain.from_iterable(item_ids)))
        known = columns != UNKNOWN
        values = np.ones(int(known.sum()), dtype=np.float32)
        matrix = csr_matrix((values, (users[known], columns[known])), shape=(len(item_ids), len(self.items)))
        matrix.data.fill(1)  # an id that was listed twice added up
        return matrix


def save_model(
    path: str | Path,
    model: Recommender,
    interactions: Interactions,
    *,
    seed: int,
    preparation: Preparation = Preparation(),
    training: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a fitted model and what its columns are called; `interactions` is what it was trained on.

    `training` is the training summary, in plain values; a figure that is not finite becomes null. In the item table,
    columns named item_id and count give way to ours. Raises OutputError if the directory exists or the disk is full.
    """
    _require_own_items(model, interactions)
    with whole_directory(Path(path), overwrite=overwrite) as draft:
        _write_weights(draft / WEIGHTS, model.state())
        pq.write_table(_items_of(interactions), draft / ITEMS, compression="zstd")
        users, items = interactions.matrix.shape
        card = ModelCard(
            format=FORMAT,
            recae=__version__,
            model=model.name,
            hyper_parameters=_plain(hyper_parameters_of(model)),
            seed=seed,
            data=TrainingData(
                digest=interactions.digest(), users=users, items=items, interactions=interactions.matrix.nnz
            ),
            preparation=preparation,
            training=_plain(training or {}),
            files={name: sha256(draft / name) for name in (WEIGHTS, ITEMS)},
        )
        content = card.model_dump()
        content["checksum"] = _checksum(content)
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (draft / CARD).write_text(text + "\n", encoding="utf-8")


def read_card(path: str | Path) -> ModelCard:
    """Read what a model directory says of itself; ArtifactError as in `load_model`."""
    path = Path(path)
    return _card_of(path, _read_card_file(path))


def load_model(path: str | Path, device: str = "cpu") -> FittedModel:
    """Read a model directory, check every file, and put the model on a device ("auto" and "cuda" too).

    Raises ArtifactError for a directory that is missing, none of ours, damaged, or from a newer recae, and for one
    whose parts do not fit together.
    """
    path, device = Path(path), resolve_device(device)
    raw = _read_card_file(path)
    card = _card_of(path, raw)
    for name, expected in card.files.items():
        _require_checksum(path / name, expected)
    items, table = _read_items(path / ITEMS)
    if len(table) != card.data.items:
        raise ArtifactError(f"{path / ITEMS} has {len(table)} items and the model {card.data.items}; {_COPY_OR_TRAIN}")
    try:
        state = load_file(path / WEIGHTS, device=device)
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(f"{path / WEIGHTS} holds no weights ({_line(error)}); {_COPY_OR_TRAIN}") from error
    try:
        model = build(card.model, **card.hyper_parameters).restore(state)
        _require_width(model, len(items))
    except (ModelError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        ours = card.recae == __version__
        raise ArtifactError(
            f"{path}: it does not fit this recae {__version__} ({_line(error)}), and was written by "
            + (f"it; {_COPY_OR_TRAIN}" if ours else f"recae {card.recae}; use that version, or train again")
        ) from error
    return FittedModel(model, items, table, card, hashlib.sha256(raw).hexdigest())


_COPY_OR_TRAIN = "copy the whole directory again, or train again"


def _read_items(file: Path) -> tuple[IdMap, pd.DataFrame]:
    try:
        table = pq.read_table(file).to_pandas()
        ids = pd.Index(table.pop("item_id"))
        if ids.hasnans or not ids.is_unique:
            raise ValueError("an item_id is null, or there twice")
        table["count"]
        return IdMap(ids), table
    except MemoryError:  # one of Arrow's errors, too
        raise
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise ArtifactError(f"{file} is no table of items ({_line(error)}); {_COPY_OR_TRAIN}") from error


def _require_width(model: Recommender, items: int) -> None:
    # A model that cannot fold in has no scores for an empty history.
    if model.folds_in:
        width = model.score(csr_matrix(np.zeros((1, items), dtype=np.float32))).shape[1]
    else:
        width = len(model.embed_items()) if isinstance(model, Embedder) else items
    if width != items:
        raise ValueError(f"the weights are of {width} items, not of {items}")


def _line(error: Exception) -> str:
    reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
    return reason if len(reason) <= 200 else reason[:200] + "…"


def _read_card_file(path: Path) -> bytes:
    try:
        return (path / CARD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not path.exists():
            raise ArtifactError(
                f"{path}: no such model directory; give one that recae train or compare wrote"
            ) from None
        raise ArtifactError(
            f"{path} is not a model directory (there is no {CARD} in it); give one that recae train or compare wrote"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path / CARD}: cannot be read ({error.strerror})") from error


def _card_of(path: Path, raw: bytes) -> ModelCard:
    damaged = ArtifactError(f"{path / CARD} is damaged; {_COPY_OR_TRAIN}")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(content, dict):
        raise damaged
    # Before the checksum: a newer format may have another one, and deserves the better message.
    found = content.get("format")
    if type(found) is int and found > FORMAT:
        raise ArtifactError(
            f"{path}: written by recae {content.get('recae')}, format {found}; "
            f"this recae reads format {FORMAT}: upgrade recae"
        )
    expected = content.pop("checksum", None)
    try:
        card = ModelCard.model_validate_json(json.dumps(content))
        intact = expected == _checksum(content) and card.format == FORMAT and set(card.files) == {WEIGHTS, ITEMS}
    except ValueError:  # pydantic's is one, and json's, for a number that became infinite
        intact = False
    if not intact:
        raise damaged
    return card


def _require_checksum(file: Path, expected: str) -> None:
    try:
        found = sha256(file)
    except FileNotFoundError:
        raise ArtifactError(f"{file} is missing; {_COPY_OR_TRAIN}") from None
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({error.strerror})") from error
    if found != expected:
        raise ArtifactError(f"{file} is damaged (its checksum is off); {_COPY_OR_TRAIN}")


def _require_own_items(model: Recommender, interactions: Interactions) -> None:
    # A model that cannot fold in knows only the rows it was trained on, and they need not be these.
    if model.folds_in and model.score(interactions.matrix[:1]).shape[1] != len(interactions.items):
        raise ValueError(f"{model.name} was trained on another number of items than {len(interactions.items)}")


def _write_weights(file: Path, state: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, file)


def _items_of(interactions: Interactions) -> pa.Table:
    known = interactions.item_table
    columns = {
        "item_id": interactions.items.ids.to_numpy(),
        "count": np.bincount(interactions.matrix.indices, minlength=len(interactions.items)),
    }
    columns |= {name: known[name].array for name in known.columns if name not in columns}
    return pa.Table.from_pandas(pd.DataFrame(columns), preserve_index=False)


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value as JSON keeps it: numpy's numbers become Python's, tuples lists, what is not finite null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
