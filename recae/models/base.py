"""The promises every model keeps, and the decorator that makes a model out of its hyper-parameters.

A model is a dataclass whose fields are its hyper-parameters, each written once, with its default, type and range.
What `fit` learns ends in an underscore. Histories are users × items, whoever the users are: a training user, an
evaluation fold-in, a brand-new user and a web request are one path.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
    runtime_checkable,
)

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.device import resolve_device
from recae.errors import CannotEmbed, ModelError, nearest
from recae.finite import require_finite
from recae.progress import Listener, silence
from recae.validation import Validation

EmbeddingKind = Literal["latent", "retrieval"]
"""latent: the bottleneck. retrieval: user vectors whose inner product with the item vectors is the score."""


@dataclass(frozen=True)
class FitOptions:
    """Everything around a fit that is no hyper-parameter of the model.

    `device` is a name of `recae.device.DEVICES` and becomes what it stands for ("auto" is "cuda" where there is one):
    DeviceError for an unknown one, or one that is not here. `validation` is what early stopping watches (without it an
    iterative model runs all its epochs); `checkpoint` is the file an iterative model writes each epoch and goes on from
    if it is there.
    """

    seed: int = 42
    device: str = "cpu"
    validation: Validation | None = None
    checkpoint: Path | None = None
    listener: Listener = silence

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", resolve_device(self.device))


class Recommender(Protocol):
    """A model that scores every item for any history.

    `folds_in` is False for the rare model that can only score histories it was trained on. One whose scores are
    products also writes them a tile at a time, for rankings of large catalogues: see `recae.scoring.ScoresByTile`.
    """

    name: ClassVar[str]
    folds_in: ClassVar[bool]

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Learn from histories, users × items; a fresh start every time. Diverged where that is not finite."""

    def score(self, histories: csr_matrix) -> Tensor:
        """Return a float32 score of every item for every history, users × items; higher is better."""

    def state(self) -> dict[str, Tensor]:
        """Return everything `fit` learned, by name."""

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over what a fit of the same hyper-parameters learned; tensors stay on their device.

        ValueError or LookupError for other tensors than those: see `recae.tensors.require_tensors`.
        """


@runtime_checkable
class Embedder(Recommender, Protocol):
    """A recommender that has vectors to give to downstream jobs."""

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return a float32 vector for each history, users × dimension."""

    def embed_items(self) -> Tensor:
        """Return the items' retrieval vectors, items × dimension.

        `embed_users(histories, "retrieval") @ embed_items().T` is `score(histories)`: an item's bias is its last
        coordinate, against a constant 1 in the user's vector, so a nearest-neighbour index needs nothing else.
        """


@runtime_checkable
class ValuePredictor(Recommender, Protocol):
    """A recommender that may tell which value (a rating, a count) an interaction would have."""

    @property
    def predicts(self) -> bool:
        """Whether it does with these hyper-parameters, or they only order items."""

    def predict(self, histories: csr_matrix) -> Tensor:
        """Return a float32 value of every item for every history, users × items.

        CannotPredict where it `predicts` none.
        """


@runtime_checkable
class Explainer(Recommender, Protocol):
    """A recommender with a likelihood: it tells how much an interaction is to be expected of a history."""

    def log_likelihoods(self, histories: csr_matrix, interactions: csr_matrix) -> Tensor:
        """Return log p of each entry of `interactions` given the same users' histories, float32 (interactions).

        Both are users × items. `interactions` has sorted, distinct columns, and each of its entries counts, one with
        the value zero too. By a multinomial likelihood, p is of an interaction with the item, whatever the value.
        """


@runtime_checkable
class Generator(Recommender, Protocol):
    """A recommender that may make up users like those it was trained on."""

    def sample(self, users: int, seed: int) -> csr_matrix:
        """Return histories of so many users who never were, users × items, the same for the same seed.

        CannotGenerate where these hyper-parameters, or an old model directory, do not tell enough.
        """


@runtime_checkable
class Transductive(Recommender, Protocol):
    """A recommender that can only score histories it was trained on: its `folds_in` is False."""

    def knows(self, histories: csr_matrix) -> NDArray[np.bool_]:
        """Return for each history whether it can be scored."""


@runtime_checkable
class Foresighted(Recommender, Protocol):
    """A recommender that knows from the histories alone how much memory a fit takes."""

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory for a fit."""


@runtime_checkable
class Adaptive(Recommender, Protocol):
    """A recommender with hyper-parameters that are None unless told, and then what the catalogue speaks for."""

    def settings(self, items: int) -> Mapping[str, Any]:
        """Return the hyper-parameters for a catalogue of so many items."""


@runtime_checkable
class Particular(Recommender, Protocol):
    """A recommender that cannot learn from all values."""

    def require_values(self, histories: csr_matrix) -> None:
        """Raise ModelError where the histories hold a value that it cannot learn from."""


ModelType = TypeVar("ModelType")

Unit = Annotated[float, Field(ge=0, lt=1)]
"""A share below one: a dropout rate."""

Count = Annotated[int, Field(gt=0, lt=2**31)]
"""A whole number of things: factors, epochs, items in a batch."""


def _of_float32(number: float) -> float:
    if number > float(np.finfo(np.float32).max):
        raise PydanticCustomError("beyond_float32", "Input should be a number that float32 has, up to 3.4e+38")
    return number


NonNegative = Annotated[float, Field(ge=0), AfterValidator(_of_float32)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_of_float32)]

Exponent = Annotated[float, Field(ge=0, le=2)]
"""The power of a length or a count by which something weighs less; beyond, float32 would run out of numbers."""

Widths = Annotated[
    tuple[Count, ...],
    Strict(False),
    BeforeValidator(lambda widths: (widths,) if isinstance(widths, int) else widths),
]
"""The widths of hidden layers, outermost first; one number stands for one layer, () for none."""


@dataclass_transform(kw_only_default=True)
def hyper_parameters(cls: type[ModelType]) -> type[ModelType]:
    """Make a class a keyword-only dataclass that checks each field's type and range when it is built.

    After a fit it checks that what was learned is finite: see `recae.finite`.
    """
    made: Any = pydantic.dataclasses.dataclass(
        cls, kw_only=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    )
    checked_init = made.__init__

    def __init__(self: object, /, *args: Any, **values: Any) -> None:
        try:
            checked_init(self, *args, **values)
        except pydantic.ValidationError as error:
            raise ModelError(_first_problem(made, error)) from None

    __init__.__wrapped__ = checked_init  # type: ignore[attr-defined]
    made.__init__ = __init__
    if hasattr(made, "fit"):
        made.fit = _checked(made.fit)
    return made  # type: ignore[no-any-return]


def _checked(fit: Callable[..., ModelType]) -> Callable[..., ModelType]:
    @wraps(fit)
    def checked(self: ModelType, histories: csr_matrix, options: FitOptions = FitOptions()) -> ModelType:
        # What overflows is of no account, or found in what was learned, of which there is more to say.
        with np.errstate(all="ignore"):
            fitted = fit(self, histories, options)
        require_finite(fitted, histories)
        return fitted

    return checked


def hyper_parameters_of(model: Any) -> dict[str, Any]:
    """Return a model's hyper-parameters as plain values: what repr, recipes, tracking and files show."""
    return asdict(model)


def settings_for(model: Recommender, items: int) -> Mapping[str, Any]:
    """Return a model's hyper-parameters for a catalogue of so many items."""
    return model.settings(items) if isinstance(model, Adaptive) else hyper_parameters_of(model)


def require_width(histories: csr_matrix, items: int, model: str) -> None:
    """Raise ValueError unless histories have one column for each item the model was trained on."""
    if histories.shape[1] != items:
        raise ValueError(f"{model} knows {items} items; these histories have {histories.shape[1]} columns")


def require_kind(kind: str, model: str) -> None:
    """Raise CannotEmbed unless there are embeddings of that kind."""
    known = get_args(EmbeddingKind)
    if kind not in known:
        raise CannotEmbed(f"{model} has no '{kind}' embedding{nearest(kind, known)}")


def _first_problem(cls: Any, error: pydantic.ValidationError) -> str:
    problem = error.errors()[0]
    key = str(problem["loc"][0]) if problem["loc"] else "?"
    known = [field.name for field in fields(cls)]
    if problem["type"] == "unexpected_positional_argument":
        return f"{cls.name} takes its hyper-parameters by name: {', '.join(known)}"
    if key not in known:
        return f"{cls.name} has no hyper-parameter '{key}'{nearest(key, known)}"
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{cls.name}: {key} = {problem['input']!r}: {reason}"
