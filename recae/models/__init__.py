"""The models, one a file, and how to find one by its name."""

from collections.abc import Mapping
from typing import Any

from recae.errors import ModelError, nearest
from recae.models.als import ALS
from recae.models.autoencoder import Autoencoder
from recae.models.base import Recommender
from recae.models.bpr import BPR
from recae.models.cdae import CDAE
from recae.models.ease import EASE
from recae.models.edlae import EDLAE
from recae.models.elsa import ELSA
from recae.models.hybrid import Hybrid
from recae.models.infinite_ae import InfiniteAE
from recae.models.item_knn import ItemKNN
from recae.models.item_mean import ItemMean
from recae.models.kernel_ae import KernelAE
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.models.popularity import Popularity
from recae.models.random import Random
from recae.models.rating_als import RatingALS
from recae.models.rdlae import RDLAE
from recae.models.rec_vae import RecVAE
from recae.models.sparse_ae import SparseAE
from recae.models.spectral import Spectral
from recae.models.vamp_vae import VampVAE

_CLASSES: tuple[type[Recommender], ...] = (
    Random,
    Popularity,
    ItemMean,
    ItemKNN,
    ALS,
    RatingALS,
    BPR,
    EASE,
    EDLAE,
    RDLAE,
    ELSA,
    Spectral,
    InfiniteAE,
    KernelAE,
    Autoencoder,
    SparseAE,
    MultDAE,
    CDAE,
    MultVAE,
    RecVAE,
    VampVAE,
    Hybrid,
)

MODELS: Mapping[str, type[Recommender]] = {model.name: model for model in _CLASSES}
"""Every model by the name that recipes and commands use."""

DEFAULT = "default"
"""What stands for the model to use where nothing speaks for another: the hybrid."""


def build(name: str, /, **hyper_parameters: Any) -> Recommender:
    """Return an unfitted model by its name; ModelError for an unknown name or hyper-parameter, or a bad value."""
    if name not in (*MODELS, DEFAULT):
        raise ModelError(f"unknown model '{name}'{nearest(name, (*MODELS, DEFAULT))}")
    make: Any = Hybrid if name == DEFAULT else MODELS[name]
    return make(**hyper_parameters)  # type: ignore[no-any-return]
