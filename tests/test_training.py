"""The one loop: what it minimises, when it stops, what it tells, and what it leaves alone."""

import random
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from checkerboard import checkerboard
from long_training import histories, validation
from scipy.sparse import csr_matrix

from recae.autoencoder import networks
from recae.autoencoder.batches import Batch, Example
from recae.autoencoder.likelihoods import multinomial
from recae.autoencoder.networks import DenoisingNetwork
from recae.autoencoder.objectives import Phase
from recae.errors import DeviceError, Diverged, MemoryRanShort, ModelError
from recae.metrics import Metric, find_hits, measure_users
from recae.models.base import FitOptions
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.progress import Step
from recae.ranking import top_n

SMALL_VAE = MultVAE(hidden=16, latent=6, batch_size=50, epochs=15, learning_rate=0.01, kl_anneal_steps=300)
SMALL_DAE = MultDAE(latent=6, batch_size=50, epochs=15, learning_rate=0.01)
MODELS = pytest.mark.parametrize("model", [SMALL_VAE, SMALL_DAE], ids=lambda model: model.name)


def test_training_equals_a_plain_dense_loop() -> None:
    """The twin: dense rows, the penalty written out in the loss, torch's own unfused Adam."""
    model = MultDAE(hidden=9, latent=4, dropout=0, batch_size=64, epochs=3, weight_decay=0.01, learning_rate=0.01)
    rows = torch.from_numpy(histories().toarray())
    generator = torch.Generator().manual_seed(3)
    twin = model.build_network(rows.shape[1]).to_empty(device="cpu")
    twin.initialise(generator)
    state = {name: tensor.clone().requires_grad_() for name, tensor in networks.weights(twin).items()}
    matrices = [tensor for name, tensor in state.items() if name.endswith("weight")]
    optimiser = torch.optim.Adam(state.values(), lr=0.01, fused=False)
    for _ in range(3):
        for chosen in torch.randperm(len(rows), generator=generator).split(64):
            row = rows[chosen]
            hidden = row / row.norm(dim=1, keepdim=True).clamp_min(1e-12)
            hidden = torch.tanh(hidden @ state["encoder.input.weight"] + state["encoder.input.bias"])
            for layer in ("encoder.layers.0", "decoder.layers.0"):
                hidden = torch.tanh(hidden @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
            logits = hidden @ state["decoder.output.weight"].T + state["decoder.output.bias"]
            loss = -(torch.log_softmax(logits, 1) * row).sum(1).mean()
            loss = loss + 0.01 * sum((matrix**2).sum() for matrix in matrices)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    found = model.fit(histories(), FitOptions(seed=3)).state()

    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor.detach(), rtol=1e-3, atol=1e-4)


@MODELS
def test_loss_decreases_and_validation_improves(model: MultVAE | MultDAE) -> None:
    told: list[Step] = []

    model.fit(histories(), FitOptions(validation=validation(), listener=told.append))

    curve = model.training_.curve
    assert curve[-1]["loss"] < 0.97 * curve[0]["loss"]
    assert curve[model.training_.best_epoch - 1]["ndcg_at_100"] > curve[0]["ndcg_at_100"]
    assert [(step.task, step.done, step.total) for step in told] == [
        (model.name, epoch, 15) for epoch in range(1, len(curve) + 1)
    ]
    assert [dict(step.figures) for step in told] == curve
    assert ("kl_weight" in curve[0]) == (model.name == "mult-vae")


@MODELS
def test_the_best_weights_are_kept_and_patience_ends_the_training(model: MultVAE | MultDAE) -> None:
    kind = type(model)
    impatient = kind(latent=6, batch_size=20, epochs=200, patience=3, learning_rate=0.03).fit(
        histories(), FitOptions(validation=validation())
    )

    done = impatient.training_
    reached = [figures["ndcg_at_100"] for figures in done.curve]
    assert done.epochs == done.best_epoch + 3 == len(reached) < 200
    assert int(np.argmax(reached)) + 1 == done.best_epoch
    assert done.updates == 10 * done.epochs
    fold = validation()
    hits = find_hits(top_n(impatient.score, fold.history, 100).items, fold.held_out)
    again = np.nanmean(measure_users(Metric("ndcg", 100), hits, np.diff(fold.held_out.indptr)))
    assert again == pytest.approx(max(reached), abs=1e-12)


@MODELS
def test_without_validation_all_epochs_are_run(model: MultVAE | MultDAE) -> None:
    done = type(model)(latent=6, epochs=5, patience=1).fit(histories()).training_

    assert (done.epochs, done.best_epoch) == (5, 5)
    assert "ndcg_at_100" not in done.curve[0]


@MODELS
def test_a_loss_that_is_not_finite_is_one_line_with_a_way_out(model: MultVAE | MultDAE) -> None:
    with pytest.raises(Diverged, match=r"mult-.ae: .* not finite in epoch [12]; lower learning_rate") as caught:
        type(model)(latent=6, learning_rate=1e30, epochs=2).fit(histories())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "unit", "named"),
    [
        ({"noise": 3e38}, 1.0, r"lower noise \(it is 3e\+38\) or learning_rate \(it is 0.001\)$"),
        ({"unseen": 1e38}, 1.0, r"lower unseen \(it is 1e\+38\) or learning_rate \(it is 0.001\)$"),
        ({}, 1e30, r"lower learning_rate \(it is 0.001\), or scale the values down \(they reach 1e\+30\)$"),
    ],
)
def test_what_is_extreme_is_named_beside_the_learning_rate(settings: dict[str, float], unit: float, named: str) -> None:
    model = MultDAE(likelihood="gaussian", latent=6, epochs=2, **settings)
    with pytest.raises(Diverged, match=named) as caught:
        model.fit(unit * histories())
    assert "\n" not in str(caught.value)


@MODELS
@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory")]
)
def test_where_memory_runs_out_parts_of_a_batch_make_the_same_update(
    model: MultVAE | MultDAE, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(model, epochs=3).fit(histories())
    home = "recae.autoencoder.likelihoods.multinomial"

    def multinomial_of_few(features: torch.Tensor, output: torch.nn.Linear, batch: Batch, sample: None) -> torch.Tensor:
        if len(batch) > 20:
            raise error
        return multinomial(features, output, batch)

    monkeypatch.setattr(home, multinomial_of_few)
    with pytest.warns(MemoryRanShort) as told:
        parts = replace(model, epochs=3).fit(histories())

    assert [str(warning.message).split("; ")[1] for warning in told] == [
        f"a batch is now worked on {users} users at a time, which changes nothing but speed" for users in (25, 12)
    ]
    for name, tensor in whole.state().items():
        torch.testing.assert_close(parts.state()[name], tensor, rtol=1e-3, atol=1e-4)
    assert [figures["loss"] for figures in parts.training_.curve] == pytest.approx(
        [figures["loss"] for figures in whole.training_.curve], rel=1e-5
    )


def test_every_epoch_tries_whole_batches_again_and_warns_only_of_fewer_users_than_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of batches of 60, 60, 60 and 20 users, memory is for so many at a time in each of the epochs."""
    model = MultDAE(latent=6, batch_size=60, epochs=6, learning_rate=0.01)
    room = iter([60, 30, 10, 30, 5, 60])
    at_most, tried, told = 0, list[list[int]](), list[list[str]]()

    def multinomial_of_few(features: torch.Tensor, output: torch.nn.Linear, batch: Batch, sample: None) -> torch.Tensor:
        tried[-1].append(len(batch))
        if len(batch) > at_most:
            raise MemoryError
        return multinomial(features, output, batch)

    def next_epoch(step: Step | None = None) -> None:
        nonlocal at_most
        at_most = next(room, 0)
        tried.append([])
        told.append([])

    def warn(message: str, *_: object, **__: object) -> None:
        told[-1].append(message)

    whole = replace(model).fit(histories())
    monkeypatch.setattr("recae.autoencoder.likelihoods.multinomial", multinomial_of_few)
    monkeypatch.setattr("recae.autoencoder.training.warnings.warn", warn)
    next_epoch()
    parts = model.fit(histories(), FitOptions(listener=next_epoch))

    assert tried[:-1] == [
        [60, 60, 60, 20],
        [60, *[30] * 6, 20],
        [60, 30, 15, *[7] * 8, 4, *[7] * 8, 4, *[7] * 8, 4, 7, 7, 6],
        [60, *[30] * 6, 20],
        [60, 30, 15, 7, *[3] * 60, *[3] * 6, 2],
        [60, 60, 60, 20],
    ]
    assert [[message.split(" users at a time")[0].split()[-1] for message in of] for of in told[:-1]] == [
        [],
        ["30"],
        ["15", "7"],
        [],
        ["3"],
        [],
    ]
    for name, tensor in whole.state().items():
        torch.testing.assert_close(parts.state()[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_short_batch_that_ran_out_of_memory_is_forgotten_after_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tried = MultDAE(latent=6, batch_size=195, epochs=2), list[int]()

    def short_once(features: torch.Tensor, output: torch.nn.Linear, batch: Batch, sample: None) -> torch.Tensor:
        tried.append(len(batch))
        if tried == [195, 5]:
            raise MemoryError
        return multinomial(features, output, batch)

    monkeypatch.setattr("recae.autoencoder.likelihoods.multinomial", short_once)
    with pytest.warns(MemoryRanShort):
        model.fit(histories())

    assert tried == [195, 5, 2, 2, 1, 195, 5]


@MODELS
def test_no_memory_for_a_single_user_is_one_line(model: MultVAE | MultDAE, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("recae.autoencoder.likelihoods.multinomial", no_memory)
    with pytest.raises(DeviceError, match="out of memory on cpu with a single user"), pytest.warns(MemoryRanShort):
        model.fit(histories())


@MODELS
def test_weights_that_cannot_fit_are_refused_before_anything_is_allocated(
    model: MultVAE | MultDAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recae.device.available_memory", lambda device: 1000)
    with pytest.raises(ModelError, match=rf"{model.name} for its weights .* GB on cpu, .*use narrower layers"):
        model.fit(histories())


def test_phases_move_their_own_parameters_in_their_order() -> None:
    model, told = MultDAE(latent=4, epochs=2, batch_size=100, weight_decay=0.0), list[str]()

    class Alternating(MultDAE):
        def phases(self, network: DenoisingNetwork, histories: csr_matrix) -> tuple[Phase, ...]:
            (whole,) = super().phases(network, histories)

            def after(part: str) -> Callable[[], None]:
                def tell() -> None:
                    moved = {n.split(".")[0] for n, w in networks.weights(network).items() if (w != before[n]).any()}
                    told.append(f"{part}: {sorted(moved)}")
                    before.update({n: w.clone() for n, w in networks.weights(network).items()})

                return tell

            before = dict[str, torch.Tensor]()

            def first(batch: Batch, generator: torch.Generator) -> Example:
                before.update({} if before else {n: w.clone() for n, w in networks.weights(network).items()})
                return whole.objective.draw(batch, generator)

            objective = replace(whole.objective, draw=first)
            return (
                Phase(objective, network.encoder, passes=2, after=after("encoder")),
                Phase(objective, network.decoder, after=after("decoder")),
            )

    done = Alternating(**asdict(model)).fit(histories()).training_

    assert told == ["encoder: ['encoder']", "decoder: ['decoder']"] * 2
    assert done.updates == 2 * 3 * 2


@MODELS
def test_global_generators_are_left_alone(model: MultVAE | MultDAE) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002

    model.fit(histories(), FitOptions(validation=validation()))

    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@MODELS
def test_histories_are_never_made_dense(model: MultVAE | MultDAE, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = validation()
    for name in ("toarray", "todense"):
        monkeypatch.setattr(csr_matrix, name, None)

    model.fit(histories(), FitOptions(validation=fold))
    model.embed_users(histories())


@pytest.mark.parametrize(
    "model",
    [
        MultVAE(hidden=16, latent=4, batch_size=4, epochs=60, learning_rate=0.02, kl_cap=0.1),
        MultDAE(latent=4, batch_size=4, epochs=60, learning_rate=0.02),
    ],
    ids=lambda model: model.name,
)
def test_checkerboard_is_learned(model: MultVAE | MultDAE) -> None:
    board = checkerboard()

    model.fit(board.history)

    assert top_n(model.score, board.history, 1).items[:, 0].tolist() == list(range(board.history.shape[0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@MODELS
def test_cuda_learns_what_the_cpu_learns(model: MultVAE | MultDAE) -> None:
    kind = type(model)
    on_cpu, on_cuda = (
        kind(latent=6, batch_size=50, epochs=40, learning_rate=0.01).fit(
            histories(), FitOptions(device=device, validation=validation())
        )
        for device in ("cpu", "cuda")
    )

    assert all(tensor.is_cuda and tensor.dtype == torch.float32 for tensor in on_cuda.state().values())
    assert on_cuda.score(histories()).is_cuda
    best = [max(figures["ndcg_at_100"] for figures in of.training_.curve) for of in (on_cpu, on_cuda)]
    assert best[1] == pytest.approx(best[0], abs=0.03)
