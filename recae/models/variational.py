"""What every variational autoencoder does in the same way: it remembers how its users' codes were spread."""

from abc import ABC
from collections.abc import Mapping
from typing import Any, Self

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.density import CodeDensity, choose_users, fit_density
from recae.autoencoder.making_up import draw_histories
from recae.errors import CannotGenerate
from recae.histories import valued
from recae.models.base import FitOptions
from recae.models.neural import NeuralRecommender

PREFIX = "density."


class VariationalRecommender(NeuralRecommender, ABC):
    """A model whose network draws codes: after training, it can make up users like those it has learned from."""

    latent: int
    network_: Any

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> Self:
        """Train as every network is trained; then fit the density of codes and lengths."""
        self.density_: CodeDensity | None = None  # while it trains, a model has none
        super().fit(histories, options)
        # Chosen first: what is read of millions of users is those few.
        chosen = choose_users(histories, options.seed)
        seen = valued(histories[chosen], zeros=self.reconstruction.keeps_zeros)
        device = self.network_.decoder.output.weight.device
        self.density_ = fit_density(self.network_, self.latent, seen, options.seed, device)
        return self

    def sample(self, users: int, seed: int) -> csr_matrix:
        """Return histories of users who never were, users × items, the same for the same seed.

        A code and a length from the density, their shares or chances from the decoder, items from `draw_histories`.
        """
        if self.likelihood == "gaussian":
            raise CannotGenerate(
                f"{self.name} with a gaussian likelihood tells what values are, not which items a user has; "
                "train it with another likelihood"
            )
        if self.density_ is None:
            raise CannotGenerate(
                f"this {self.name} was written by a recae that left out how its users' codes are spread; train it again"
            )
        generator = torch.Generator().manual_seed(seed)
        codes, lengths = self.density_.sample(users, generator)
        with torch.no_grad():
            logits = self.network_.decoder(codes.to(self.density_.means.device))
        return draw_histories(logits.cpu(), lengths, self.likelihood, generator)

    def state(self) -> dict[str, Tensor]:
        """Return the network's weights, and the density."""
        density = self.density_.state() if self.density_ is not None else {}
        return super().state() | {PREFIX + name: tensor for name, tensor in density.items()}

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state; one that was written before there was a density has none, and users cannot be drawn."""
        density = {name.removeprefix(PREFIX): state[name] for name in state if name.startswith(PREFIX)}
        super().restore({name: state[name] for name in state if not name.startswith(PREFIX)})
        self.density_ = CodeDensity.of_state(density, self.latent) if density else None
        return self
