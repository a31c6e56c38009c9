"""The one loop that trains every network, on a CPU and on CUDA by the same code.

The loop knows epochs, phases, batches, Adam, memory, validation, checkpoints and listeners. What is learned is the
model's business: it brings a network, and phases, each with an objective that turns a batch into a loss.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.checkpoint import Fingerprint, Progress, damaged, digest, load_checkpoint, save_checkpoint
from recae.autoencoder.networks import Network, load_weights, weights
from recae.autoencoder.objectives import Loss, Phase, Schedule
from recae.autoencoder.optimiser import Adam
from recae.autoencoder.recorded import LARGEST, RecordedUpdate, Update, record_on_cuda, usual_room
from recae.autoencoder.streamed import Source, place
from recae.device import is_out_of_memory, require_memory
from recae.errors import DeviceError, Diverged, Interrupted, MemoryRanShort
from recae.finite import all_finite, way_out
from recae.kernels.memory import memory_kept
from recae.metrics import Metric
from recae.profiling import each, stage
from recae.progress import Listener, Step, TrainingSummary
from recae.tensors import forms_of
from recae.validation import Validation


class Trainable(Protocol):
    """A model as the loop sees it: hyper-parameters that every model trained here has, and `score`.

    What an update minimises is a phase's objective plus `weight_decay` · Σ‖W‖² over the weights, without the biases.
    With validation data, training ends after `patience` epochs without a better one. With `averaging`, what is
    validated and kept is an average of the weights over the updates, and not the weights themselves: see Adam.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    averaging: float
    patience: int

    def score(self, histories: csr_matrix) -> Tensor:
        """Return a score of every item for every history, by the network as it is now."""


@dataclass(eq=False)
class _Training:
    """Everything that changes while a network is trained."""

    network: Network
    phases: Sequence[Phase]
    optimisers: Sequence[Adam]
    generator: torch.Generator
    progress: Progress
    best_weights: Mapping[str, Tensor]
    users_at_once: int
    """How many of a batch's users the loss is taken of at a time; each epoch begins with all of them."""
    fewest_at_once: int
    """The fewest there ever were at a time: only fewer are worth another warning."""


@memory_kept()
def train(
    model: Trainable,
    network: Network,
    phases: Sequence[Phase],
    histories: csr_matrix,
    *,
    seed: int,
    device: str,
    validation: Validation | None,
    checkpoint: Path | None,
    listener: Listener,
) -> TrainingSummary:
    """Train a network, new or from its checkpoint, and leave it on the device with its best weights.

    After every epoch the checkpoint, if there is to be one, is replaced, then the listener is told: `loss` (the mean
    objective over the epoch's passes and users), the latest figures of the schedules and of the phases, the one that is
    watched (`ndcg_at_100`, unless the validation says otherwise) where there is validation data, and the `seconds` that
    the passes took. A training that goes on from a checkpoint tells the epochs before again, so that the listener has
    the whole curve.

    Where memory runs out, the loss of a batch is taken of half as many users at a time until the end of the epoch, with
    a MemoryRanShort warning whenever there were never so few: the gradients add up to the same update. The next epoch
    tries whole batches again, because what took the memory may be gone; at worst that costs it a few failed tries.

    Raises Diverged when a loss or a weight is not finite, Interrupted on Ctrl-C, ArtifactError for a checkpoint that
    is damaged or of another training, OutputError when a checkpoint cannot be written, ModelError where the weights
    will not fit in memory, DeviceError where not even one user's loss does.
    """
    fingerprint = {
        "model": model.name,
        **asdict(model),
        "seed": seed,
        "device": device,
        "training data": digest(histories),
        "validation history": digest(validation.history) if validation else None,
        "validation held-out": digest(validation.held_out) if validation else None,
        "watched": validation.watched.key if validation else None,
    }
    require_room(model, network, device, phases=phases, validated=validation is not None)
    training = _begin(model, network, phases, seed, device)
    progress = training.progress
    if checkpoint is not None and checkpoint.exists():
        progress = _resume(training, checkpoint, fingerprint)
    data = place(histories, device)
    updates = _updates(training, model, data)
    saved = progress.epoch
    started = time.monotonic() - progress.seconds
    try:
        for epoch, figures in enumerate(progress.curve, start=1):
            listener(Step(model.name, epoch, model.epochs, figures))
        while progress.epoch < model.epochs and progress.epoch - progress.best_epoch < model.patience:
            figures = _epoch(training, model, histories, data, updates)
            with _averaged(training):
                if validation is not None:
                    with stage("validate"):
                        figures[validation.watched.key] = validation.measure(model)
                _advance(training, figures, time.monotonic() - started, validation.watched if validation else None)
            if checkpoint is not None:
                with stage("checkpoint"):
                    save_checkpoint(checkpoint, fingerprint, progress, _tensors(training, progress))
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
        watched=validation.watched.key if validation else None,
    )


def require_room(
    model: Trainable, network: Network, device: str, *, phases: Sequence[Phase] = (), validated: bool = False
) -> None:
    """Refuse a network whose weights, gradients, moments, averages and best weights, as far as it has them, do not fit.

    It may be one on torch's "meta" device, which has no weights yet. Without phases all of it is taken to move. Row-
    sparse gradients are not counted: they are as large as a batch.
    """
    of_moved = 2 + (not network.row_sparse) + (model.averaging > 0)
    moved = sum(_size(phase.moves or network) for phase in phases) if phases else _size(network)
    require_memory(
        device,
        (1 + validated) * _size(network) + of_moved * moved,
        f"{model.name} for its weights and their optimiser",
        "use narrower layers (latent, hidden), or fewer items",
    )


def _size(part: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in part.parameters())


def _begin(model: Trainable, network: Network, phases: Sequence[Phase], seed: int, device: str) -> _Training:
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the CPU, so that training starts from the same weights on every device.
    network.to_empty(device="cpu").initialise(generator)
    if network.standard is not None:
        network.standard.begin(network.decoder.output.bias)
    network.to(device)
    if device != "cpu":
        generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    optimisers = [
        Adam(list((phase.moves or network).parameters()), model.learning_rate, model.weight_decay, model.averaging)
        for phase in phases
    ]
    for optimiser in optimisers:
        optimiser.prepare(network.tables())  # so that what a checkpoint holds is known before the first update
    size = model.batch_size
    return _Training(network, phases, optimisers, generator, Progress(), weights(network), size, size)


def _epoch(
    training: _Training, model: Trainable, histories: csr_matrix, data: Source, updates: Sequence[Update]
) -> dict[str, float]:
    """Go through the phases once; return the figures of the epoch."""
    begun = time.monotonic()
    network, generator, progress = training.network, training.generator, training.progress
    total = torch.zeros((), device=generator.device)
    figures: dict[str, float] = {}
    training.users_at_once = model.batch_size
    for phase, update, optimiser in zip(training.phases, updates, training.optimisers, strict=True):
        moved = phase.moves or network
        network.requires_grad_(False)
        moved.requires_grad_()
        for _ in range(phase.passes):
            order = torch.randperm(len(data), generator=generator, device=generator.device)
            for batch in each("cut batch", data.batches(order, model.batch_size)):
                schedule = phase.objective.schedule(progress.updates)
                with stage("step"):
                    total += update(batch, schedule)
                progress.updates += 1
                figures |= schedule
        optimiser.settle()
        phase.after()
        figures |= phase.figures()
    # Looked at once an epoch, because each look makes the processor wait for the device.
    if not all_finite([total, *network.parameters()]):
        raise Diverged(
            f"{model.name}: loss or weights are not finite in epoch {progress.epoch + 1}; {way_out(model, histories)}"
        )
    passes = sum(phase.passes for phase in training.phases)
    return {"loss": total.item() / (passes * len(data)), **figures, "seconds": time.monotonic() - begun}


def _updates(training: _Training, model: Trainable, data: Source) -> list[Update]:
    """Return for each phase what an update does, recorded where the device can play it back."""

    def update(phase: Phase, optimiser: Adam, batch: Batch, schedule: Schedule) -> Tensor:
        with stage("corrupt"):
            example = phase.objective.draw(batch, training.generator)
        optimiser.zero_grad()
        total = _backward(training, model, phase.objective.loss, example, schedule)
        with stage("update"):
            optimiser.step()
        return total

    plain: list[Update] = [
        partial(update, *of_phase) for of_phase in zip(training.phases, training.optimisers, strict=True)
    ]
    large = sum(parameter.numel() for parameter in training.network.parameters()) > LARGEST
    if training.generator.device.type != "cuda" or training.network.row_sparse or large:
        return plain  # what a row-sparse update touches has another size each time
    size = min(model.batch_size, len(data))
    room = usual_room(data.lengths(), size)
    return [RecordedUpdate(one, size, room, partial(record_on_cuda, training.generator)) for one in plain]


def _backward(training: _Training, model: Trainable, loss: Loss, example: Example, schedule: Schedule) -> Tensor:
    """Give the network the gradient of an example's mean loss, in as many parts as memory asks for; return the sum."""
    while True:
        try:
            return _backward_in_parts(loss, example, schedule, training.users_at_once)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the `except`, whose error holds on to everything that was allocated.
        training.users_at_once = min(training.users_at_once, len(example)) // 2
        if training.users_at_once == 0:
            raise DeviceError(
                f"{model.name}: out of memory on {training.generator.device} with a single user at a time; "
                "use narrower layers, or fewer items"
            )
        if training.users_at_once < training.fewest_at_once:
            training.fewest_at_once = training.users_at_once
            warnings.warn(
                f"{model.name}: out of memory; a batch is now worked on {training.users_at_once} users at a time, "
                f"which changes nothing but speed; a batch_size below {len(example)} avoids it",
                MemoryRanShort,
                stacklevel=2,
            )
        for parameter in training.network.parameters():
            parameter.grad = None


def _backward_in_parts(loss: Loss, example: Example, schedule: Schedule, users: int) -> Tensor:
    total = torch.zeros((), device=example.target.values.device)
    for start in range(0, len(example), users):
        with stage("forward"), _precision(total.device.type):
            part = loss(example.part(start, min(start + users, len(example))), schedule).sum()
        with stage("backward"):
            (part / len(example)).backward()  # type: ignore[no-untyped-call]
        total += part.detach()
    return total


def _precision(device: str) -> AbstractContextManager[object]:
    """Take matrix products, and return them, in bfloat16 on CUDA; weights and updates are float32 everywhere."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")


@contextmanager
def _averaged(training: _Training) -> Iterator[None]:
    """Let the network have the averages for weights, where there are any."""
    for optimiser in training.optimisers:
        optimiser.swap_averages()
    try:
        yield
    finally:
        for optimiser in training.optimisers:
            optimiser.swap_averages()


def _advance(training: _Training, figures: dict[str, float], seconds: float, watched: Metric | None) -> None:
    """Count an epoch, and keep its weights if they are the best: without validation data the latest always are."""
    progress = training.progress
    progress.epoch += 1
    progress.seconds = seconds
    progress.curve.append(figures)
    if watched is None:
        progress.best_epoch, training.best_weights = progress.epoch, weights(training.network)
    elif progress.best is None or watched.sign * (figures[watched.key] - progress.best) > 0:
        if progress.best is None:
            training.best_weights = {name: torch.empty_like(t) for name, t in weights(training.network).items()}
        for name, tensor in weights(training.network).items():
            training.best_weights[name].copy_(tensor)
        progress.best, progress.best_epoch = figures[watched.key], progress.epoch


def _tensors(training: _Training, progress: Progress) -> dict[str, Tensor]:
    """Return everything a checkpoint must hold beside the progress."""
    tensors = {f"weights.{name}": tensor for name, tensor in weights(training.network).items()}
    if progress.best_epoch != progress.epoch:
        tensors |= {f"best.{name}": tensor for name, tensor in training.best_weights.items()}
    for phase, optimiser in enumerate(training.optimisers):
        for number, moments in optimiser.state.items():
            tensors |= {f"adam.{phase}.{number}.{name}": tensor for name, tensor in moments.items()}
    return tensors | {"generator": training.generator.get_state()}


def _resume(training: _Training, path: Path, fingerprint: Fingerprint) -> Progress:
    progress, kept = load_checkpoint(path, fingerprint, lambda progress: forms_of(_tensors(training, progress)))
    try:
        training.generator.set_state(kept["generator"])
    except RuntimeError as error:  # of the right size, but not what a generator writes
        raise damaged(path, "generator is no state of a random generator") from error
    training.progress = progress
    for name, tensor in _tensors(training, progress).items():
        if name.startswith(("weights.", "adam.")):
            tensor.copy_(kept[name])
    with _averaged(training):
        training.best_weights = {
            name: kept.get(f"best.{name}", tensor).to(tensor.device, copy=True)
            for name, tensor in weights(training.network).items()
        }
    return progress


def _where_it_stopped(model: Trainable, saved: int, checkpoint: Path | None) -> str:
    if checkpoint is None:
        return f"{model.name}: interrupted; nothing is kept, because no checkpoint was asked for"
    if saved == 0:
        return f"{model.name}: interrupted in its first epoch; there is no checkpoint yet"
    return f"{model.name}: interrupted after {saved} of at most {model.epochs} epochs; the checkpoint is {checkpoint}"
