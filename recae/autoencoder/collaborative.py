"""The network of CDAE: a bottleneck that reads a history and a vector of the user's own."""

import torch
from torch import Tensor, nn

from recae.autoencoder.batches import Batch
from recae.autoencoder.networks import Decoder, Encoder, Network


class CollaborativeNetwork(Network):
    """An autoencoder with one hidden layer, to which every user of the training has a vector to add.

    `user_vectors` (users, latent) has a row for each of those; a batch says by its `rows` whose it is, and a row below
    0 that it is nobody's.
    """

    def __init__(self, items: int, latent: int, users: int, *, unit_length: bool = True) -> None:
        super().__init__()
        self.unit_length = unit_length
        with torch.device("meta"):
            self.encoder = Encoder(items, (latent,))
            self.user_vectors = nn.Parameter(torch.empty(users, latent))
            self.decoder = Decoder((latent,), items)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights; users begin without a vector, as what histories have in common is learned first."""
        super().initialise(generator)
        nn.init.zeros_(self.user_vectors)

    def latent(self, batch: Batch) -> Tensor:
        """Return tanh(Wᵀ x_u + v_u + b), users × latent: Wu et al. 2016, equation 6."""
        own = self.user_vectors.index_select(0, batch.rows.clamp(min=0))
        return torch.tanh(self.encoder(batch) + own * (batch.rows >= 0)[:, None])
