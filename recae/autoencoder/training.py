"""The one loop that trains every network, on a CPU and on CUDA by the same code.

The loop knows epochs, batches, Adam, validation, checkpoints and listeners. What is learned is the model's business: it
brings a network, and an objective that turns a batch into a loss.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Histories
from recae.autoencoder.checkpoint import Progress, digest, load_checkpoint, save_checkpoint
from recae.autoencoder.networks import Network, initialise, load_weights, weights
from recae.errors import Diverged, Interrupted
from recae.metrics import Metric, find_hits, measure_users
from recae.progress import Listener, Step, TrainingSummary
from recae.ranking import top_n

WATCHED = Metric("ndcg", 100)
"""What validation measures, and early stopping watches."""

Objective = Callable[[Batch, int, torch.Generator], tuple[Tensor, dict[str, float]]]
"""The loss of a batch, averaged over its users, after so many updates, and figures of that moment worth showing."""

Score = Callable[[csr_matrix], Tensor]


class Trainable(Protocol):
    """A model as the loop sees it: hyper-parameters that every model trained here has, and `score`.

    The loss that the loop minimises is the objective plus `weight_decay` · Σ‖W‖² over the weights, without the biases.
    With validation data, training ends after `patience` epochs without a better one.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int

    def score(self, histories: csr_matrix) -> Tensor:
        """Return a score of every item for every history, by the network as it is now."""


class Fold(Protocol):
    """Histories to score and the held-out items to find in them."""

    @property
    def history(self) -> csr_matrix:
        """Return users × items."""

    @property
    def held_out(self) -> csr_matrix:
        """Return users × items."""


@dataclass(eq=False)
class _Training:
    """Everything that changes while a network is trained."""

    network: Network
    optimiser: torch.optim.Adam
    generator: torch.Generator
    progress: Progress
    best_weights: Mapping[str, Tensor]


def train(
    model: Trainable,
    network: Network,
    objective: Objective,
    histories: csr_matrix,
    *,
    seed: int,
    device: str,
    validation: Fold | None,
    checkpoint: Path | None,
    listener: Listener,
) -> TrainingSummary:
    """Train a network, new or from its checkpoint, and leave it on the device with its best weights.

    After every epoch the checkpoint, if there is to be one, is replaced, then the listener is told: `loss` (the mean
    objective over the users), what the objective adds, `ndcg_at_100` where there is validation data, and the
    `seconds` that the pass over the users took. A training that goes on from a checkpoint tells the epochs before
    again, so that the listener has the whole curve.

    Raises Diverged when a loss or a weight is not finite, Interrupted on Ctrl-C, ArtifactError for a checkpoint that
    is damaged or of another training, OutputError when a checkpoint cannot be written.
    """
    fingerprint = {
        "model": model.name,
        **asdict(model),
        "seed": seed,
        "device": device,
        "training data": digest(histories),
        "validation history": digest(validation.history) if validation else None,
        "validation held-out": digest(validation.held_out) if validation else None,
    }
    training = _begin(model, network, seed, device)
    progress = training.progress
    if checkpoint is not None and checkpoint.exists():
        progress = _resume(training, checkpoint, fingerprint)
    data = Histories.of(histories, device)
    saved = progress.epoch
    started = time.monotonic() - progress.seconds
    try:
        for epoch, figures in enumerate(progress.curve, start=1):
            listener(Step(model.name, epoch, model.epochs, figures))
        while progress.epoch < model.epochs and progress.epoch - progress.best_epoch < model.patience:
            figures = _epoch(training, model, objective, data)
            if validation is not None:
                figures[WATCHED.key] = _measure(model.score, validation)
            _advance(training, figures, time.monotonic() - started)
            if checkpoint is not None:
                save_checkpoint(checkpoint, fingerprint, progress, _tensors(training))
                saved = progress.epoch
            listener(Step(model.name, progress.epoch, model.epochs, figures))
    except KeyboardInterrupt:
        raise Interrupted(_where_it_stopped(model, saved, checkpoint)) from None
    load_weights(network, training.best_weights)
    return TrainingSummary(
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        updates=progress.updates,
        seconds=time.monotonic() - started,
        curve=progress.curve,
    )


def _begin(model: Trainable, network: Network, seed: int, device: str) -> _Training:
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the CPU, so that training starts from the same weights on every device.
    initialise(network.to_empty(device="cpu"), generator)
    network.to(device)
    if device != "cpu":
        generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return _Training(network, _adam(model, network), generator, Progress(), weights(network))


def _adam(model: Trainable, network: Network) -> torch.optim.Adam:
    parameters = list(network.parameters())
    groups = [
        # Adam's own weight decay adds its rate times W to the gradient; that of λ‖W‖² is 2λW.
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 2 * model.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=model.learning_rate, fused=True)


def _epoch(training: _Training, model: Trainable, objective: Objective, data: Histories) -> dict[str, float]:
    """Pass once over all users in a random order; return the figures of the pass."""
    begun = time.monotonic()
    generator, progress = training.generator, training.progress
    order = torch.randperm(len(data), generator=generator, device=generator.device)
    total = torch.zeros((), device=generator.device)
    figures: dict[str, float] = {}
    for chosen in torch.split(order, model.batch_size):
        with _precision(generator.device.type):
            loss, figures = objective(data.batch(chosen), progress.updates, generator)
        training.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        training.optimiser.step()
        progress.updates += 1
        total += loss.detach() * len(chosen)
    # Looked at once an epoch, because each look makes the processor wait for the device.
    finite = torch.stack([total.isfinite(), *(p.isfinite().all() for p in training.network.parameters())])
    if not finite.all():
        raise Diverged(
            f"{model.name}: loss or weights are not finite in epoch {progress.epoch + 1}; "
            f"lower learning_rate (it is {model.learning_rate:g})"
        )
    return {"loss": total.item() / len(data), **figures, "seconds": time.monotonic() - begun}


def _precision(device: str) -> AbstractContextManager[object]:
    """Take matrix products, and return them, in bfloat16 on CUDA; weights and updates are float32 everywhere."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")


def _measure(score: Score, validation: Fold) -> float:
    """Return the mean NDCG@100 of the users with a target."""
    top = top_n(score, validation.history, WATCHED.k)
    targets = np.diff(validation.held_out.indptr)
    if not targets.any():
        raise ValueError("validation without a held-out item")
    return float(np.nanmean(measure_users(WATCHED, find_hits(top.items, validation.held_out), targets)))


def _advance(training: _Training, figures: dict[str, float], seconds: float) -> None:
    """Count an epoch, and keep its weights if they are the best: without validation data the latest always are."""
    progress = training.progress
    progress.epoch += 1
    progress.seconds = seconds
    progress.curve.append(figures)
    reached = figures.get(WATCHED.key)
    if reached is None:
        progress.best_epoch, training.best_weights = progress.epoch, weights(training.network)
    elif progress.best is None or reached > progress.best:
        progress.best, progress.best_epoch = reached, progress.epoch
        training.best_weights = {name: tensor.clone() for name, tensor in weights(training.network).items()}


def _tensors(training: _Training) -> dict[str, Tensor]:
    """Return everything a checkpoint must hold beside the progress."""
    tensors = {f"weights.{name}": tensor for name, tensor in weights(training.network).items()}
    if training.progress.best_epoch != training.progress.epoch:
        tensors |= {f"best.{name}": tensor for name, tensor in training.best_weights.items()}
    for number, moments in training.optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": tensor for name, tensor in moments.items()}
    return tensors | {"generator": training.generator.get_state()}


def _resume(training: _Training, path: Path, fingerprint: Mapping[str, Any]) -> Progress:
    progress, tensors = load_checkpoint(path, fingerprint)
    training.progress = progress
    network, optimiser = training.network, training.optimiser
    network.load_state_dict(_part(tensors, "weights"))
    best = _part(tensors, "best")
    device = training.generator.device
    training.best_weights = {name: tensor.to(device) for name, tensor in best.items()} or {
        name: tensor.clone() for name, tensor in weights(network).items()
    }
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _part(tensors, "adam").items():
        number, name = key.split(".")
        moments.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    training.generator.set_state(tensors["generator"])
    return progress


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _where_it_stopped(model: Trainable, saved: int, checkpoint: Path | None) -> str:
    if checkpoint is None:
        return f"{model.name}: interrupted; nothing is kept, because no checkpoint was asked for"
    if saved == 0:
        return f"{model.name}: interrupted in its first epoch; there is no checkpoint yet"
    return f"{model.name}: interrupted after {saved} of at most {model.epochs} epochs; the checkpoint is {checkpoint}"
