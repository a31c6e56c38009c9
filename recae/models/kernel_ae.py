"""Kernel-AE: Infinite-AE where users are alike in their histories and in what a linear autoencoder makes of them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import normalize

from recae.device import require_memory
from recae.errors import ModelError
from recae.histories import by_length, presence, require_interactions
from recae.models.base import Exponent, FitOptions, Positive, Unit, hyper_parameters
from recae.models.infinite_ae import L2, Landmarks, Sharpness, TargetExponent
from recae.models.linear import UserExponent
from recae.models.memory import Likeness, RemembersUsers, forms, landmarks_of, memorise, memory_needed, recall
from recae.models.rdlae import RDLAE
from recae.profiling import stage
from recae.tensors import Form, require_tensors

BLOCKS = 2
"""The linear scores of a history, and their roots."""

HistoryExponent = Annotated[
    Exponent, Field(description="how much less items with many users count in how alike histories are")
]
LinearItems = Annotated[int, Field(ge=0, description="how many items the linear autoencoder takes, at most")]


@hyper_parameters
class KernelAE(RemembersUsers):
    """Find the users that a history is like by three looks at it, and add up what they have, by solved weights.

    The looks are the history x itself; the scores xB of a linear autoencoder of full rank, RDLAE; and the roots of
    those above zero, by which Hellinger's distance compares distributions. In each, an item counts by (l2 + its
    users)^-exponent, so that what everybody has makes nobody alike, and each is of unit length. The kernel is
    exp(`sharpness` · the mean of the three cosines), and the rest is Infinite-AE. All of it is in closed form. It is
    recae's own: docs/LOG.md has how it was found, and what each part of it gains.

    The weights of the linear autoencoder are items × items. Where items are more than `linear_items` it is left out,
    and the first look is the only one; on sparse sets that does as well (docs/LOG.md).

    The histories of the landmarks are a part of the state.
    """

    name: ClassVar[str] = "kernel-ae"

    l2: Annotated[Positive, Field(description="weight of |B|² in the linear autoencoder")] = 200.0
    dropout: Annotated[Unit, Field(description="share of the interactions that the linear autoencoder drops")] = 0.5
    relaxation: Annotated[Unit, Field(description="weight of an item in its own linear score, at most")] = 0.5
    user_exponent: UserExponent = 0.5
    kernel_l2: L2 = None
    sharpness: Sharpness = 2.0
    history_exponent: HistoryExponent = 0.4
    score_exponent: Annotated[
        Exponent, Field(description="how much less they count in how alike linear scores are")
    ] = 0.25
    target_exponent: TargetExponent = 0.4
    landmarks: Landmarks = None
    linear_items: LinearItems = 25_000

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Solve twice on the device; ModelError, before any work, where the memory will not do."""
        seen = presence(histories)
        require_interactions(seen, self.name)
        self.require_memory(seen, options.device)
        self.linear_ = None
        if seen.shape[1] <= self.linear_items:
            with stage("linear"):
                self.linear_ = self._linear().fit(seen, options)
        counts = np.bincount(seen.indices, minlength=seen.shape[1])
        self.rarity_ = torch.as_tensor(1 / (self.l2 + counts), dtype=torch.float32, device=options.device)
        with stage("memory"):
            self.memory_ = memorise(
                seen,
                self._likeness(),
                l2=self.kernel_l2,
                setting=f"{self.name}: kernel_l2",
                target=self._target,
                count=self.landmarks,
                seed=options.seed,
                device=options.device,
            )
        return self

    def require_memory(self, histories: csr_matrix, device: str) -> None:
        """Raise ModelError where a device does not have the memory for the linear part, or for the rest beside it."""
        users, items = histories.shape
        blocks = BLOCKS if items <= self.linear_items else 0
        if blocks:
            try:
                self._linear().require_memory(histories, device)
            except ModelError as error:
                raise ModelError(f"{self.name}: {error}; or lower linear_items, to do without it") from None
        needed = memory_needed(users, items, self.landmarks, device, blocks) + (4 * items**2 if blocks else 0)
        what = f"{self.name}, with {landmarks_of(users, items, self.landmarks):,} landmarks and {items:,} items,"
        require_memory(device, needed, what, "lower landmarks, or use rec-vae")

    def state(self) -> dict[str, Tensor]:
        """Return B as `linear`, if any, 1 / (l2 + users) of each item as `rarity`, and the state of the memory."""
        linear = {"linear": self.linear_.weights_} if self.linear_ else {}
        return {**linear, "rarity": self.rarity_, **self.memory_.state()}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state."""
        own: dict[str, Form] = {"rarity": (torch.float32, ("items",))}
        if len(state["rarity"]) <= self.linear_items:
            own["linear"] = torch.float32, ("items", "items")
        of_memory = forms(state)
        require_tensors({name: tensor for name, tensor in state.items() if name not in of_memory}, own)
        self.linear_ = self._linear().restore({"weights": state["linear"]}) if "linear" in own else None
        self.rarity_ = state["rarity"]
        memory = {name: tensor for name, tensor in state.items() if name not in own}
        self.memory_ = recall(memory, self._likeness(), self._target)
        return self

    def _linear(self) -> RDLAE:
        return RDLAE(l2=self.l2, dropout=self.dropout, relaxation=self.relaxation, user_exponent=self.user_exponent)

    def _likeness(self) -> Likeness:
        linear, scale = self.linear_, self.rarity_**self.score_exponent
        of_items = (self.rarity_**self.history_exponent).cpu().numpy()
        if linear is None:
            return Likeness(self.sharpness, of_items)

        def image(histories: csr_matrix) -> Tensor:
            scores = linear.score(histories)
            looks = (scores * scale, scores.clamp(min=0).sqrt() * scale)
            return torch.cat([normalize(look) for look in looks], dim=1)

        return Likeness(self.sharpness, of_items, image, BLOCKS)

    def _target(self, histories: csr_matrix) -> csr_matrix:
        return by_length(histories, self.target_exponent)
