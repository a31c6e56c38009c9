"""recae: autoencoder recommenders, from an interaction log to compared, tracked rankings and embeddings.

The public names are below; each is imported when it is first asked for, so that `import recae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from recae.artifact import FittedModel, load_model, save_model
    from recae.comparison import compare
    from recae.embedding import embed_users
    from recae.evaluation import Evaluation, evaluate, summarise
    from recae.events import Columns, Events, open_events, read_events
    from recae.interactions import IdMap, Interactions, Preparation, prepare
    from recae.metrics import Metric
    from recae.models import MODELS, build
    from recae.models.base import Embedder, FitOptions, Recommender
    from recae.ranking import TopN, top_n
    from recae.splitting import Fold, Split, given, global_time, leave_last_out, strong_generalisation
    from recae.validation import Validation

_HOMES = {
    "recae.artifact": ("FittedModel", "load_model", "save_model"),
    "recae.comparison": ("compare",),
    "recae.embedding": ("embed_users",),
    "recae.evaluation": ("Evaluation", "evaluate", "summarise"),
    "recae.events": ("Columns", "Events", "open_events", "read_events"),
    "recae.interactions": ("IdMap", "Interactions", "Preparation", "prepare"),
    "recae.metrics": ("Metric",),
    "recae.models": ("MODELS", "build"),
    "recae.models.base": ("Embedder", "FitOptions", "Recommender"),
    "recae.ranking": ("TopN", "top_n"),
    "recae.splitting": ("Fold", "Split", "given", "global_time", "leave_last_out", "strong_generalisation"),
    "recae.validation": ("Validation",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'recae' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
