"""Hybrid: a variational autoencoder, a memory of users and a filter of the graph between them, in one score."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import CannotEmbed, ModelError
from recae.histories import evenly, presence, require_interactions
from recae.metrics import find_hits, measure_users
from recae.models.base import (
    Count,
    EmbeddingKind,
    Exponent,
    FitOptions,
    NonNegative,
    Positive,
    Unit,
    hyper_parameters,
    hyper_parameters_of,
    require_kind,
    require_width,
)
from recae.models.infinite_ae import L2, Landmarks, Sharpness
from recae.models.kernel_ae import KernelAE, LinearItems
from recae.models.mult_vae import MultVAE
from recae.models.neural import Patience
from recae.models.rec_vae import RecVAE
from recae.models.spectral import Alpha, Factors, Sharpening, Spectral
from recae.profiling import stage
from recae.scoring import Tiles
from recae.selection import best_columns
from recae.tensors import Form, require_tensors
from recae.validation import WATCHED, Scores, Validation

BLOCK = 2**24
"""How many scores tell how far those of a part spread."""

JUDGES = 1000
"""How many validation users, evenly drawn, choose the weights, at most: their scores by all parts are in memory."""

WEIGHTS = (0.0, 0.06, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0, 16.0, 64.0)
"""Weights of a part that are tried, where with 1 its scores spread as far as the deep part's."""

FEWEST = 30
"""How many validation users it takes to choose any weight: of fewer, one alone could keep a filter."""

ROUNDING = 1e-5
"""A spread below this share of the largest score is rounding, and no opinion."""

ROUNDS = 4
"""How often each part's weight is chosen anew, given the other's, at most."""

SURE = 2.0
"""How many of its standard errors the gain by the filter must be, for it to be kept."""

NEGATIVES = 4096
"""How many items stand for the whole of a large catalogue where the deep part is Mult-VAE."""

USUAL = 0.7
"""The weight of the memory without validation users: that of MovieLens-1M (docs/LOG.md)."""

BY_DEPTH: Mapping[str, Mapping[str, Any]] = {
    "rec-vae": {
        "hidden": 600,
        "layers": 5,
        "latent": 200,
        "dropout": 0.5,
        "gamma": 0.005,
        "averaging": 0.98,
        "learning_rate": 5e-4,
        "batch_size": 250,
        "epochs": 100,
        "history_exponent": 0.4,
        "target_exponent": 0.4,
    },
    "mult-vae": {
        "latent": 1024,
        "learning_rate": 1e-4,
        "batch_size": 500,
        "epochs": 6,
        "history_exponent": 0.25,
        "target_exponent": 0.0,
    },
}
"""Hyper-parameters where they are None, by the deep part: chosen on MovieLens-1M, and on Gowalla and Yelp2018."""

OF_REC_VAE = BY_DEPTH["rec-vae"].keys() - BY_DEPTH["mult-vae"].keys()


@dataclass(frozen=True)
class Weighed:
    """How much the memory and the filter of the graph weigh, where with 1 they spread as far as the deep part's scores.

    With validation users, their NDCG@100 by the deep part alone, and by all together.
    """

    memory_weight: float
    filter_weight: float
    ndcg_at_100_deep: float | None = None
    ndcg_at_100_all: float | None = None


def unless_told(name: str, what: str) -> Any:
    """Return the field of a hyper-parameter that BY_DEPTH knows, whose description says what it then is."""
    dense, wide = (BY_DEPTH[deep].get(name) for deep in ("rec-vae", "mult-vae"))
    usual = f"{dense:g}; for rec-vae alone" if wide is None else f"{dense:g}, with mult-vae {wide:g}"
    return Field(default=None, description=f"{what}; unless told, {usual}")


@hyper_parameters
class Hybrid:
    """Score a history by its code, by the users it is like, and, where that helps, by who has what they have.

    The deep part is RecVAE: it knows what kind of history this is. Of a catalogue of more than `linear_items`, on which
    that takes long and knows little, it is Mult-VAE, which begins at a spectral filter of the width of the bottleneck.
    The second is Kernel-AE, which is in closed form: it knows who has had all this before, and, by the weights between
    all items that it holds where these are not too many, which item goes with which, as no bottleneck can. The third is
    the sharpened filter of Spectral. Each is fitted by itself; docs/LOG.md has what became of fitting them together.

    How much the others weigh beside the first is chosen for the best NDCG@100 of the validation users, whose held-out
    items no part has seen (the likelihood would choose far too little of them). The filter, which takes its time to
    score, is only kept where these users gain by it twice the standard error, as they do on sparse sets: once would
    be little, with weights that suit just these users. With fewer than FEWEST of them there is none, and the weight is
    what is best on MovieLens-1M. The latent embedding is that of the deep part, and so are the likelihood and the users
    that are made up; as a part of the score has full rank, there are no retrieval vectors.
    """

    name: ClassVar[str] = "hybrid"
    folds_in: ClassVar[bool] = True
    keeps: ClassVar[float] = 0.1  # the share of the users that `recae train` keeps to choose by, if not told otherwise

    deep: Literal["rec-vae", "mult-vae"] | None = Field(
        default=None,
        description="the deep part; unless told, mult-vae, from a warm start, above linear_items, else rec-vae",
    )
    hidden: Count | None = unless_told("hidden", "width of each hidden layer of the encoder")
    layers: Count | None = unless_told("layers", "hidden layers of the encoder")
    latent: Count | None = unless_told("latent", "width of the bottleneck, and of latent embeddings")
    dropout: Unit | None = unless_told("dropout", "chance of each item to be hidden while the encoder learns")
    gamma: NonNegative | None = unless_told("gamma", "weight of the divergence, for each item of the history")
    averaging: Unit | None = unless_told("averaging", "what an update leaves of the weights' average")
    learning_rate: Positive | None = unless_told("learning_rate", "of Adam")
    batch_size: Count | None = unless_told("batch_size", "users in an update")
    epochs: Count | None = unless_told("epochs", "times that training goes through the users, at most")
    history_exponent: Exponent | None = unless_told(
        "history_exponent", "how much less items with many users count in how alike histories are"
    )
    target_exponent: Exponent | None = unless_told(
        "target_exponent", "how much less users with many items weigh in what the memory reconstructs"
    )
    patience: Patience = 15
    l2: Annotated[Positive, Field(description="weight of |B|² in the linear autoencoder")] = 200.0
    kernel_l2: L2 = None
    sharpness: Sharpness = 2.0
    landmarks: Landmarks = None
    linear_items: LinearItems = 25_000
    factors: Factors = 400
    alpha: Alpha = 0.2
    sharpening: Sharpening = 2.0

    def __post_init__(self) -> None:
        """Refuse at once what `settings` would."""
        if self.deep is not None:
            self.settings(0)

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve for the one part, train the other, and weigh them; ModelError where the memory will not do."""
        seen = presence(histories)
        require_interactions(seen, self.name)
        self.require_memory(seen, options.device)
        self.memory_ = self._memory(seen.shape[1]).fit(seen, options)
        heard = replace(options, listener=lambda step: options.listener(replace(step, task=self.name)))
        self.deep_ = self._deep(seen.shape[1]).fit(seen, heard)
        some = seen[evenly(seen.shape[0], max(1, BLOCK // seen.shape[1]))]
        alike = [_alike(self.deep_, self.memory_, some)]
        self.filter_, weighed = None, Weighed(USUAL, 0.0)
        if options.validation is not None and len(_judges(options.validation)) >= FEWEST:
            graph = self._filter().fit(seen, options)
            alike.append(_alike(self.deep_, graph, some))
            with stage("weigh"):
                weighed = self._best_weights(graph, options.validation, alike)
            self.filter_ = graph if weighed.filter_weight else None
        weights = weighed.memory_weight * alike[0], weighed.filter_weight * alike[-1]
        self.weight_, self.filter_weight_ = (torch.tensor(weight, device=options.device) for weight in weights)
        settings = self.settings(seen.shape[1])
        opened = {
            name: settings[name]
            for name, told in hyper_parameters_of(self).items()
            if told is None and name in settings
        }
        self.training_ = replace(self.deep_.training_, chosen=opened | asdict(weighed))
        return self

    def settings(self, items: int) -> Mapping[str, Any]:
        """Return the hyper-parameters for a catalogue of so many items: as told, or by the deep part.

        ModelError where one is told that this part does not have.
        """
        deep = self.deep or ("rec-vae" if items <= self.linear_items else "mult-vae")
        told = {name: value for name, value in hyper_parameters_of(self).items() if value is not None}
        if foreign := [name for name in told if name in OF_REC_VAE and deep == "mult-vae"]:
            why = "" if self.deep else f", which it is for {items:,} items, more than linear_items"
            raise ModelError(
                f"{self.name}: {', '.join(foreign)}: not with mult-vae for the deep part{why}; "
                "leave them out, or give deep = rec-vae"
            )
        return {"deep": deep, **BY_DEPTH[deep], **told}

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory for one of the parts."""
        items = histories.shape[1]
        for part in (self._memory(items), self._deep(items), self._filter()):
            try:
                part.require_memory(histories, device)
            except ModelError as error:
                raise ModelError(f"{self.name}: {error}") from None

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        seen = self._read(histories)
        scores = torch.addcmul(self.deep_.score(seen), self.memory_.score(seen), self.weight_)
        return scores if self.filter_ is None else scores.addcmul_(self.filter_.score(seen), self.filter_weight_)

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        seen = self._read(histories)
        deep = self.deep_.score_by_tile(seen)
        others = [(self.memory_.score_by_tile(seen), self.weight_)]
        if self.filter_ is not None:
            others.append((self.filter_.score_by_tile(seen), self.filter_weight_))

        def write(start: int, tile: Tensor) -> None:
            deep.write(start, tile)
            part = torch.empty_like(tile)
            for tiles, weight in others:
                tiles.write(start, part)
                tile.addcmul_(part, weight)

        return Tiles(deep.device, write)

    def embed_users(self, histories: csr_matrix, kind: EmbeddingKind = "latent") -> Tensor:
        """Return the deep part's bottleneck, users × latent; CannotEmbed for retrieval."""
        require_kind(kind, self.name)
        if kind == "retrieval":
            raise CannotEmbed(
                f"{self.name} has no retrieval vectors, as weights between all items are a part of its score; "
                "ask for latent ones, or train rec-vae"
            )
        return self.deep_.embed_users(self._read(histories))

    def embed_items(self) -> Tensor:
        """Raise CannotEmbed: no vectors have these scores for products."""
        raise CannotEmbed(
            f"{self.name} has no vectors of items, as weights between all of them are a part of its score; "
            "train rec-vae"
        )

    def log_likelihoods(self, histories: csr_matrix, interactions: csr_matrix) -> Tensor:
        """Return what the deep part makes of each interaction, (interactions)."""
        return self.deep_.log_likelihoods(self._read(histories), interactions)

    def sample(self, users: int, seed: int) -> csr_matrix:
        """Return histories that the deep part makes up, users × items."""
        return self.deep_.sample(users, seed)

    def state(self) -> dict[str, Tensor]:
        """Return the states of the parts that there are, and the weights of all but the first."""
        parts = {"deep.": self.deep_.state(), "memory.": self.memory_.state()}
        weights = {"weight": self.weight_}
        if self.filter_ is not None:
            parts["filter."], weights["filter_weight"] = self.filter_.state(), self.filter_weight_
        states = {part + name: tensor for part, state in parts.items() for name, tensor in state.items()}
        return {**states, **weights}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        known = "deep.", "memory.", "filter."
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(known)}
        wanted: dict[str, Form] = {"weight": (torch.float32, ())}
        deep, memory, graph = (
            {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}
            for part in known
        )
        if graph:
            wanted["filter_weight"] = torch.float32, ()
        require_tensors(rest, wanted)
        items = len(memory["rarity"])
        self.memory_, self.deep_ = self._memory(items).restore(memory), self._deep(items).restore(deep)
        self.filter_ = self._filter().restore(graph) if graph else None
        widths = {len(self.deep_.embed_items()), len(self.memory_.rarity_)}
        if self.filter_ is not None:
            widths.add(len(self.filter_.vectors_))
        if len(widths) > 1:
            raise ValueError(f"parts that know {' and '.join(map(str, sorted(widths)))} items")
        self.weight_ = state["weight"]
        self.filter_weight_ = state.get("filter_weight", torch.zeros_like(self.weight_))
        return self

    def _read(self, histories: csr_matrix) -> csr_matrix:
        require_width(histories, len(self.memory_.rarity_), self.name)
        return presence(histories)

    def _deep(self, items: int) -> RecVAE | MultVAE:
        settings = self.settings(items)
        training = {name: settings[name] for name in ("latent", "learning_rate", "batch_size", "epochs", "patience")}
        if settings["deep"] == "mult-vae":
            return MultVAE(
                hidden=(),
                warm_start=True,
                half_split=True,
                shown=0.6,
                dropout=0.0,
                negatives=NEGATIVES if items > 4 * NEGATIVES else 0,
                kl_cap=0.1,
                kl_anneal_steps=0,
                **training,
            )
        own = {name: settings[name] for name in OF_REC_VAE}
        return RecVAE(encoder_passes=1, decoder_passes=1, **own, **training)

    def _memory(self, items: int) -> KernelAE:
        names = "l2", "kernel_l2", "sharpness", "history_exponent", "target_exponent", "landmarks", "linear_items"
        settings = self.settings(items)
        return KernelAE(**{name: settings[name] for name in names if name in settings})

    def _filter(self) -> Spectral:
        return Spectral(factors=self.factors, alpha=self.alpha, sharpening=self.sharpening)

    def _best_weights(self, graph: Spectral, validation: Validation, alike: Sequence[float]) -> Weighed:
        """Return the weights that are best, or as good without the filter, given what makes the parts spread alike."""
        history, held_out = validation.history, validation.held_out
        judges = _judges(validation)
        judges = judges[evenly(len(judges), min(JUDGES, max(1, 8 * BLOCK // history.shape[1])))]
        history, held_out = presence(history[judges]), held_out[judges]
        targets, k = np.diff(held_out.indptr), min(WATCHED.k, history.shape[1])
        parts: list[Scores] = [self.memory_, graph]
        deep = self.deep_.score(history)
        deep[history.nonzero()] = -torch.inf
        others = [part.score(history) * scale for part, scale in zip(parts, alike, strict=True)]

        def reached(weights: Sequence[float]) -> NDArray[np.float64]:
            scores = deep.clone()
            for part, weight in zip(others, weights, strict=True):
                scores.add_(part, alpha=weight)
            return measure_users(WATCHED, find_hits(best_columns(scores, k)[1].cpu().numpy(), held_out), targets)

        def best(weights: tuple[float, ...], place: int) -> tuple[float, ...]:
            tried = [(*weights[:place], weight, *weights[place + 1 :]) for weight in WEIGHTS]
            return max(tried, key=lambda these: float(reached(these).mean()))

        chosen = alone = best((0.0, 0.0), 0)
        for _ in range(ROUNDS):
            before, chosen = chosen, best(best(chosen, 1), 0)
            if chosen == before:
                break
        gains = reached(chosen) - reached(alone)
        if gains.mean() <= SURE * gains.std(ddof=1) / len(gains) ** 0.5:
            chosen = alone
        return Weighed(*chosen, *(float(reached(weights).mean()) for weights in ((0.0, 0.0), chosen)))


def _judges(validation: Validation) -> NDArray[np.int64]:
    """Return the rows of the validation users who hold something out."""
    return np.flatnonzero(np.diff(validation.held_out.indptr))


def _alike(deep: Scores, other: Scores, histories: csr_matrix) -> float:
    """Return what makes the scores of another part spread as far as those of the deep one, 0 where they do not."""
    scores = other.score(histories)
    spread = float(scores.std(correction=0))
    if spread <= ROUNDING * float(scores.abs().max()):
        return 0.0
    return float(deep.score(histories).std(correction=0)) / spread
