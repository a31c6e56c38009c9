"""Mult-VAE and RecVAE as they are usually written in PyTorch: dense rows, nn.Linear, log_softmax, Adam.

What recae is measured by: the same models as recae's, honestly and plainly written, with nothing slow put in: rows of a
batch are made dense from CSR, as RecPack, RecBole and the published codes do it. Mult-VAE starts as recae's does, and
anneals its divergence to 1 over 2,000 updates, recae's defaults and not the paper's .2 and 200,000. RecVAE starts from
torch's own initialisation, as its published code, and has a gamma of .005, the paper's for MovieLens-20M (recae's
default is .01). What a benchmark wants otherwise it says itself.
"""

import math

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional


class PlainMultVAE(nn.Module):
    """Liang et al. 2018: items - hidden - latent - hidden - items, on dense rows of users × items."""

    def __init__(self, items: int, hidden: int = 600, latent: int = 200, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = dropout
        self.encoder = nn.Sequential(nn.Linear(items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, items))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.trunc_normal_(layer.bias, std=0.001, a=-0.002, b=0.002)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (users, items), and mean and log-variance (users, latent)."""
        unit = functional.dropout(functional.normalize(rows), self.dropout, self.training)
        mean, log_variance = self.encoder(unit).chunk(2, dim=1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance


def train_epoch(
    model: PlainMultVAE,
    optimiser: torch.optim.Optimizer,
    histories: csr_matrix,
    *,
    batch_size: int = 500,
    updates: int = 0,
    kl_cap: float = 1.0,
    kl_anneal_steps: int = 2000,
) -> int:
    """Pass once over all users in a random order; return how many updates there have been with those of this pass."""
    model.train()
    order = torch.randperm(histories.shape[0]).numpy()
    for start in range(0, len(order), batch_size):
        rows = torch.from_numpy(histories[order[start : start + batch_size]].toarray())
        logits, mean, log_variance = model(rows)
        likelihood = (functional.log_softmax(logits, dim=1) * rows).sum(dim=1)
        divergence = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(dim=1)
        loss = (min(kl_cap, updates / kl_anneal_steps) * divergence - likelihood).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        updates += 1
    return updates


class PlainDenselyConnectedEncoder(nn.Module):
    """Five layers, each given the sum of all before it, with swish and layer normalisation: Shenbin et al. 2020."""

    def __init__(self, items: int, hidden: int, layers: int, latent: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(hidden if layer else items, hidden) for layer in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps=0.1) for _ in range(layers))
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, (users, latent)."""
        activation, before = rows, torch.zeros(())
        for layer, norm in zip(self.layers, self.norms, strict=True):
            activation = norm(functional.silu(layer(activation) + before))
            before = before + activation
        return self.mean(activation), self.log_variance(activation)


class PlainRecVAE(nn.Module):
    """Shenbin et al. 2020: a composite prior that remembers the posterior of an epoch ago, a linear decoder."""

    def __init__(
        self,
        items: int,
        hidden: int = 600,
        layers: int = 5,
        latent: int = 200,
        dropout: float = 0.5,
        gamma: float = 0.005,
    ) -> None:
        super().__init__()
        self.dropout, self.gamma = dropout, gamma
        self.encoder = PlainDenselyConnectedEncoder(items, hidden, layers, latent)
        self.old = PlainDenselyConnectedEncoder(items, hidden, layers, latent).requires_grad_(False)
        self.decoder = nn.Linear(latent, items)

    def forward(self, rows: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (users, items), and the code, its mean and its log-variance (users, latent)."""
        mean, log_variance = self.encoder(functional.dropout(functional.normalize(rows), dropout, self.training))
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        code = mean + noise * torch.exp(0.5 * log_variance)
        return self.decoder(code), code, mean, log_variance

    def divergence(self, rows: Tensor, code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return log q(z | x) - log p(z | x) at the code, (users), under the composite prior of each coordinate."""
        with torch.no_grad():
            old_mean, old_log_variance = self.old(functional.normalize(rows))
        standard, wide = torch.zeros(()), torch.tensor(10.0)
        parts = [
            math.log(3 / 20) + log_normal(code, standard, standard),
            math.log(3 / 4) + log_normal(code, old_mean, old_log_variance),
            math.log(1 / 10) + log_normal(code, standard, wide),
        ]
        prior = torch.logsumexp(torch.stack(parts), dim=0)
        return (log_normal(code, mean, log_variance) - prior).sum(dim=1)


def log_normal(code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log-density of each coordinate of a code."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + (code - mean) ** 2 / log_variance.exp())


def train_rec_vae_epoch(
    model: PlainRecVAE,
    encoder_optimiser: torch.optim.Optimizer,
    decoder_optimiser: torch.optim.Optimizer,
    histories: csr_matrix,
    *,
    batch_size: int = 500,
    encoder_passes: int = 3,
) -> None:
    """Pass over all users for the encoder, make it the old one, and pass once more for the decoder."""
    model.train()
    for turn in range(encoder_passes + 1):
        encoding = turn < encoder_passes
        model.encoder.requires_grad_(encoding)
        model.decoder.requires_grad_(not encoding)
        optimiser = encoder_optimiser if encoding else decoder_optimiser
        if not encoding:
            model.old.load_state_dict(model.encoder.state_dict())
        order = torch.randperm(histories.shape[0]).numpy()
        for start in range(0, len(order), batch_size):
            rows = torch.from_numpy(histories[order[start : start + batch_size]].toarray())
            logits, code, mean, log_variance = model(rows, dropout=model.dropout if encoding else 0.0)
            loss = -(functional.log_softmax(logits, dim=1) * rows).sum(dim=1)
            if encoding:
                loss = loss + model.gamma * rows.sum(dim=1) * model.divergence(rows, code, mean, log_variance)
            optimiser.zero_grad()
            loss.mean().backward()
            optimiser.step()


def score(model: PlainMultVAE | PlainRecVAE, histories: csr_matrix) -> Tensor:
    """Return logits, users × items, from the posterior's mean."""
    model.eval()
    with torch.no_grad():
        return model(torch.from_numpy(histories.toarray().astype(np.float32)))[0]
