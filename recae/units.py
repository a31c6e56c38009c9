"""What the units of a sparse autoencoder respond to, by name: how often each fires, and its top items.

units   unit (its number), fires (for what share of the users), rank (from 1), item_id, weight (in the output), excess
        (of that weight over what is usual for the item, in standard deviations), lift where a log was counted in (how
        many times as often as all its users those have the item for whom the unit fires), and title where titles are
        known; the units that fire most come first, and of each its items by descending lift; without a log, and for a
        unit that fires for nobody in it, by descending excess
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.artifact import FittedModel
from recae.errors import InputError, ModelError
from recae.jobs import Histories, Written
from recae.models import MODELS
from recae.models.sparse_ae import Units
from recae.tables import write_table


@runtime_checkable
class HasUnits(Protocol):
    """A model that consists of units, which fire for some histories and not for others."""

    def units(self, top: int, histories: csr_matrix | None = None) -> Units:
        """Return how often each unit fires over histories, by default those of the training, and its top items."""


@dataclass(frozen=True, eq=False)
class NamedUnits:
    """The units of a model with their `top` items, as a table: see the head of this file."""

    table: pa.Table
    top: int

    def __len__(self) -> int:
        return len(self.table) // self.top

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield for each unit its number, how often it fires, and lists of what there is of its items."""
        for start in range(0, len(self.table), self.top):
            columns = self.table.slice(start, self.top).to_pydict()
            of_items = {name: column for name, column in columns.items() if name not in ("unit", "fires", "rank")}
            yield {"unit": columns["unit"][0], "fires": columns["fires"][0], **of_items}

    @property
    def dead(self) -> int:
        """How many units fire for nobody."""
        return sum(unit["fires"] == 0 for unit in self)


def require_units(model: FittedModel) -> HasUnits:
    """Return the model if it consists of units; ModelError if not."""
    if isinstance(model.model, HasUnits):
        return model.model
    able = ", ".join(name for name, one in MODELS.items() if hasattr(one, "units"))
    raise ModelError(f"{model.card.model} has no units that fire for some users and not for others; {able} has")


def name_units(model: FittedModel, read: Histories | None = None, *, top: int = 10) -> NamedUnits:
    """Return the units, and how often each fires for the users of a log, by default those of the training.

    The items that name a unit are those that more of the users have for whom it fires; of the training's users, of
    whom that is no longer known, those whose output weight in it is large for them. Users without an item that the
    model knows do not count. InputError for a `top` below 1.
    """
    if top < 1:
        raise InputError(f"--top {top}: ask for at least 1 item of each unit")
    histories = None
    if read is not None:
        matrix = read.histories.matrix
        histories = matrix[np.flatnonzero(np.diff(matrix.indptr))]
    found = require_units(model).units(top, histories)
    fires, items = found.fires.cpu().numpy(), found.items.cpu().numpy()
    order, top = np.argsort(-fires, kind="stable"), items.shape[1]
    item = items[order].ravel()
    columns = {
        "unit": pa.array(np.repeat(order, top).astype(np.int32)),
        "fires": pa.array(np.repeat(fires[order], top)),
        "rank": pa.array(np.tile(np.arange(1, top + 1, dtype=np.int32), len(order))),
        "item_id": pa.array(model.items.to_ids(item)),
        "weight": _column(found.weights, order),
        "excess": _column(found.excesses, order),
    }
    if found.lifts is not None:
        columns["lift"] = _column(found.lifts, order)
    if "title" in model.item_table:
        columns["title"] = pa.array(model.item_table["title"].iloc[item].astype("string"))
    return NamedUnits(pa.table(columns), top)


def _column(of_units: Tensor, order: NDArray[np.integer]) -> pa.Array:
    """Return what is known of units' items, units × top, in the order of a table's rows."""
    return pa.array(of_units.cpu().numpy()[order].ravel())


def write_units(model: FittedModel, units: NamedUnits, out: Path, *, overwrite: bool = False) -> Written:
    """Write the units as a table."""
    about = {"model": model.card.model, "digest": model.digest, "top": units.top}
    write_table(out, units.table, about=about, overwrite=overwrite)
    return Written(out, units.table.num_rows)
