"""What a denoising autoencoder does to a history before it has to reconstruct it."""

import torch

from recae.autoencoder.batches import Batch


def drop_interactions(batch: Batch, rate: float, generator: torch.Generator) -> Batch:
    """Take each interaction away with probability `rate`, and scale those that stay by 1 / (1 - rate).

    The expected value of every interaction stays what it was. Liang et al. 2018 (section 4.3) do this at the input;
    their code first divides the history by its norm.
    """
    if rate == 0:
        return batch
    draws = torch.rand(batch.values.shape, generator=generator, device=batch.values.device)
    return batch.with_values(batch.values / (1 - rate)).keep(draws >= rate)
