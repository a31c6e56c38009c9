"""The models, one a file, and how to find one by its name."""

from collections.abc import Mapping
from typing import Any

from recae.errors import ModelError, nearest
from recae.models.als import ALS
from recae.models.base import Recommender
from recae.models.bpr import BPR
from recae.models.ease import EASE
from recae.models.item_knn import ItemKNN
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.models.popularity import Popularity
from recae.models.random import Random
from recae.models.rdlae import RDLAE
from recae.models.rec_vae import RecVAE

_CLASSES: tuple[type[Recommender], ...] = (
    Random,
    Popularity,
    ItemKNN,
    ALS,
    BPR,
    EASE,
    RDLAE,
    MultDAE,
    MultVAE,
    RecVAE,
)

MODELS: Mapping[str, type[Recommender]] = {model.name: model for model in _CLASSES}
"""Every model by the name that recipes and commands use."""


def build(name: str, /, **hyper_parameters: Any) -> Recommender:
    """Return an unfitted model by its name; ModelError for an unknown name or hyper-parameter, or a bad value."""
    if name not in MODELS:
        raise ModelError(f"unknown model '{name}'{nearest(name, MODELS)}")
    make: Any = MODELS[name]
    return make(**hyper_parameters)  # type: ignore[no-any-return]
