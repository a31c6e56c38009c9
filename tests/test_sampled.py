"""A sample for the whole catalogue: next to the whole, to a dense twin in float64, and in models that train with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkerboard import checkerboard
from hypothesis import given
from hypothesis import strategies as st
from long_training import histories, validation
from safetensors.torch import load, save
from scipy.sparse import csr_matrix, random_array
from torch import Tensor, nn

from recae.autoencoder import networks
from recae.autoencoder.batches import Batch, batch_of
from recae.autoencoder.likelihoods import multinomial
from recae.autoencoder.optimiser import Adam
from recae.autoencoder.sampling import Sample, Sampler
from recae.errors import Interrupted, MemoryRanShort, ModelError
from recae.models.base import FitOptions
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.progress import Step
from recae.ranking import top_n

DAE = {"latent": 6, "batch_size": 50, "epochs": 6, "learning_rate": 0.01}
VAE = {"hidden": 16, "latent": 6, "batch_size": 50, "epochs": 6, "learning_rate": 0.01, "kl_anneal_steps": 300}
MODELS = pytest.mark.parametrize(
    "model",
    [
        MultDAE(**DAE, negatives=9),
        MultDAE(**DAE, tied=True),
        MultDAE(**DAE, negatives=9, tied=True),
        MultVAE(**VAE, negatives=9),
        MultVAE(**VAE, tied=True),
        MultVAE(**VAE, negatives=9, tied=True),
    ],
    ids=lambda model: f"{model.name}{' sampled' * bool(model.negatives)}{' tied' * model.tied}",
)


def drawn(seed: int, users: int = 7, items: int = 11, width: int = 5) -> tuple[Tensor, nn.Linear, csr_matrix]:
    """Return features, an output layer and histories; the first user has none."""
    generator = torch.Generator().manual_seed(seed)
    output = nn.Linear(width, items)
    with torch.no_grad():
        output.weight.copy_(torch.randn(items, width, generator=generator))
        output.bias.copy_(torch.randn(items, generator=generator))
    matrix = csr_matrix(random_array((users, items), density=0.3, rng=np.random.default_rng(seed), dtype=np.float32))
    matrix.data[matrix.indptr[0] : matrix.indptr[1]] = 0
    matrix.eliminate_zeros()
    return torch.randn(users, width, generator=generator), output, matrix


def dense_twin(features: Tensor, weight: Tensor, bias: Tensor, matrix: csr_matrix, sample: Sample) -> Tensor:
    """The formula, every item one after the other: its weight in the sum is 1 for an own one, 0 for one not drawn."""
    rows = torch.from_numpy(matrix.toarray()).double()
    counted = torch.zeros_like(rows)
    counted[:, sample.items] = sample.log_weights.double().exp()
    counted[rows != 0] = 1
    logits = features @ weight.T + bias
    return (rows * logits).sum(1) - rows.sum(1) * (counted * logits.exp()).sum(1).log()


def some(items: int, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(items, size=rng.integers(1, items + 1), replace=False))
    return Sample(torch.from_numpy(chosen), torch.from_numpy(rng.normal(size=len(chosen))).float())


@given(seed=st.integers(0, 10_000))
def test_value_and_gradients_are_those_of_the_dense_formula(seed: int) -> None:
    features, output, matrix = drawn(seed)
    sample, batch = some(11, seed), batch_of(matrix, "cpu")
    slope = torch.randn(7, generator=torch.Generator().manual_seed(seed))
    twins = [t.detach().double().requires_grad_() for t in (features, output.weight, output.bias)]
    expected = dense_twin(*twins, matrix, sample)
    (expected * slope).sum().backward()

    features.requires_grad_()
    found = multinomial(features, output, batch, sample)
    (found * slope).sum().backward()

    torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=1e-4, atol=1e-4)
    for gradient, twin in zip((features.grad, output.weight.grad, output.bias.grad), twins, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient.to_dense().double(), twin.grad, rtol=1e-3, atol=1e-4)
    touched = sorted({*batch.items.tolist(), *sample.items.tolist()})
    for gradient in (output.weight.grad, output.bias.grad):
        assert gradient is not None
        assert gradient.is_sparse
        assert gradient._indices().tolist() == [touched]


@given(seed=st.integers(0, 10_000), power=st.sampled_from([0.0, 0.75]))
def test_a_sample_of_all_items_gives_the_whole_softmax(seed: int, power: float) -> None:
    features, output, matrix = drawn(seed)
    batch = batch_of(matrix, "cpu")
    sampler = Sampler.of(np.bincount(matrix.indices, minlength=11), 11, power)

    sample = sampler.draw(torch.Generator().manual_seed(seed))

    assert sample.items.tolist() == list(range(11))
    torch.testing.assert_close(
        multinomial(features, output, batch, sample), multinomial(features, output, batch), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_the_estimate_of_the_normaliser_is_unbiased(power: float) -> None:
    features, output, _ = drawn(3, users=1, items=40)
    matrix = csr_matrix(([1.0, 1.0], ([0, 0], [4, 7])), shape=(1, 40), dtype=np.float32)
    batch, generator = batch_of(matrix, "cpu"), torch.Generator().manual_seed(0)
    sampler = Sampler.of(np.arange(40) ** 2, 6, power)
    with torch.no_grad():
        logits = output(features)[0].double()
        own = logits[[4, 7]].sum()
        estimates = torch.stack(
            [(own - multinomial(features, output, batch, sampler.draw(generator))[0]) / 2 for _ in range(800)]
        ).exp()

    error = estimates.std() / len(estimates) ** 0.5
    assert abs(estimates.mean() - logits.exp().sum()) < 4 * error
    assert error < 0.1 * logits.exp().sum()


@given(
    counts=st.lists(st.integers(0, 1000), min_size=1, max_size=30),
    power=st.sampled_from([0.0, 0.5, 1.0]),
    data=st.data(),
)
def test_chances_grow_with_counts_and_add_up(counts: list[int], power: float, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(counts)))
    sampler = Sampler.of(np.array(counts), size, power)

    chances = sampler.chances.numpy()
    assert chances.sum() == pytest.approx(size)
    assert (chances > 0).all()
    assert (chances <= 1).all()
    weights = np.maximum(counts, 1) ** power
    uncertain = chances < 1 - 1e-9
    if uncertain.any():
        ratio = (chances / weights)[uncertain]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
        assert weights[~uncertain].min(initial=np.inf) >= weights[uncertain].max() * (1 - 1e-9)


def test_an_item_is_drawn_as_often_as_its_chance_says() -> None:
    counts = np.array([0, 1, 2, 3, 5, 8, 13, 100, 1000, 1])
    sampler, generator = Sampler.of(counts, 4), torch.Generator().manual_seed(1)
    draws = 1000
    times = torch.zeros(10, dtype=torch.float64)
    for _ in range(draws):
        sample = sampler.draw(generator)
        assert sample.items.tolist() == sorted(set(sample.items.tolist()))
        times[sample.items] += sample.log_weights.double().exp() * sampler.chances[sample.items]

    spread = (draws * sampler.chances).sqrt()
    assert ((times - draws * sampler.chances).abs() <= 4 * spread).all()
    assert times[8] == draws  # the most popular one is always there


def test_features_in_half_precision_are_multiplied_in_single() -> None:
    features, output, matrix = drawn(5)
    half = features.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = multinomial(half, output, batch_of(matrix, "cpu"), some(11, 5))

    assert found.dtype == torch.float32
    assert torch.equal(found, multinomial(half.float(), output, batch_of(matrix, "cpu"), some(11, 5)))


@MODELS
def test_parts_of_a_batch_share_the_sample_and_make_the_same_update(
    model: MultDAE | MultVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(model).fit(histories())

    def of_few(features: Tensor, output: nn.Linear, batch: Batch, sample: Sample | None) -> Tensor:
        if len(batch) > 20:
            raise MemoryError
        return multinomial(features, output, batch, sample)

    monkeypatch.setattr("recae.autoencoder.likelihoods.multinomial", of_few)
    with pytest.warns(MemoryRanShort):
        parts = replace(model).fit(histories())

    for name, tensor in whole.state().items():
        torch.testing.assert_close(parts.state()[name], tensor, rtol=1e-3, atol=1e-4)


@MODELS
def test_interrupted_and_resumed_is_the_same_training(model: MultDAE | MultVAE, tmp_path: Path) -> None:
    options = FitOptions(seed=5, validation=validation())
    path = tmp_path / "training.checkpoint"
    whole = replace(model).fit(histories(), options)
    with pytest.raises(Interrupted, match="after 3 of at most 6 epochs"):
        replace(model).fit(histories(), replace(options, checkpoint=path, listener=interrupt_at(3)))

    resumed = replace(model).fit(histories(), replace(options, checkpoint=path))

    assert resumed.state().keys() == whole.state().keys()
    for name, tensor in whole.state().items():
        assert torch.equal(resumed.state()[name], tensor), name


def interrupt_at(epoch: int) -> Callable[[Step], None]:
    def listener(step: Step) -> None:
        if step.done == epoch:
            raise KeyboardInterrupt

    return listener


@MODELS
def test_it_learns_and_repeats_and_can_be_stored(model: MultDAE | MultVAE) -> None:
    fitted = replace(model, epochs=15).fit(histories())

    curve = fitted.training_.curve
    assert curve[-1]["loss"] < 0.97 * curve[0]["loss"]
    again = replace(model, epochs=15).fit(histories())
    other = replace(model, epochs=15).fit(histories(), FitOptions(seed=7))
    restored = replace(model).restore(load(save(fitted.state())))
    scores = fitted.score(histories())
    assert torch.equal(again.score(histories()), scores)
    assert torch.equal(restored.score(histories()), scores)
    assert restored.state().keys() == fitted.state().keys()
    assert not torch.equal(other.score(histories()), scores)
    torch.testing.assert_close(fitted.embed_users(histories(), "retrieval") @ fitted.embed_items().T, scores)
    assert fitted.fit(histories()[:30]).score(histories()).shape == (200, 50)


@MODELS
def test_a_checkerboard_is_learned(model: MultDAE | MultVAE) -> None:
    board = checkerboard()
    enough = {"batch_size": 4, "epochs": 80, "learning_rate": 0.03} | (
        {"kl_cap": 0.1} if model.name == "mult-vae" else {}
    )

    fitted = replace(model, **enough, **({"negatives": 6} if model.negatives else {})).fit(board.history)

    assert top_n(fitted.score, board.history, 1).items[:, 0].tolist() == list(range(12))


@pytest.mark.parametrize("negatives", [0, 9])
def test_the_gradient_of_tied_weights_is_the_sum_of_both(negatives: int) -> None:
    gradients, tables = [], []
    for tied in (True, False):
        model = MultDAE(latent=6, negatives=negatives, tied=tied)
        network = model.build_network(50).to_empty(device="cpu")
        network.initialise(torch.Generator().manual_seed(0))
        if not tied:
            networks.load_weights(network, {**tables[0], "decoder.output.weight": tables[0]["encoder.input.weight"]})
            network.requires_grad_()
        (phase,) = model.phases(network, histories())
        example = phase.objective.draw(batch_of(histories(), "cpu"), torch.Generator().manual_seed(1))
        phase.objective.loss(example, {}).sum().backward()
        tables.append({name: tensor.clone() for name, tensor in networks.weights(network).items()})
        gradients.append({name: p.grad.to_dense() for name, p in network.named_parameters()})

    together = gradients[1].pop("decoder.output.weight") + gradients[1]["encoder.input.weight"]
    torch.testing.assert_close(gradients[0].pop("encoder.input.weight"), together)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize("model", [MultDAE(**DAE, tied=True), MultVAE(**VAE, tied=True)], ids=lambda model: model.name)
def test_tied_weights_are_stored_once(model: MultDAE | MultVAE) -> None:
    state = model.fit(histories()).state()

    assert [name for name, tensor in state.items() if 50 in tensor.shape] == [
        "encoder.input.weight",
        "decoder.output.bias",
    ]
    assert torch.equal(model.embed_items()[:, :-1], state["encoder.input.weight"])
    assert len(replace(model, tied=False).fit(histories()).state()) == len(state) + 1


@pytest.mark.parametrize("tied", [False, True])
def test_an_update_touches_only_the_rows_it_has_to_do_with(tied: bool) -> None:
    few = histories()[:3]
    model = MultDAE(latent=6, negatives=4, tied=tied, weight_decay=0.1)
    network = model.build_network(50).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in networks.weights(network).items()}
    (phase,) = model.phases(network, few)
    example = phase.objective.draw(batch_of(few, "cpu"), torch.Generator().manual_seed(1))
    phase.objective.loss(example, {}).mean().backward()
    assert all(p.grad.is_sparse == (len(p) == 50) for p in network.parameters())

    Adam(list(network.parameters()), 0.01, 0.1).step()

    rows = {
        name: set((tensor != before[name]).view(50, -1).any(dim=1).nonzero().squeeze(1).tolist())
        for name, tensor in networks.weights(network).items()
        if len(tensor) == 50
    }
    assert example.sample is not None
    read, reconstructed = set(example.input.items.tolist()), {*few.indices.tolist(), *example.sample.items.tolist()}
    assert rows.pop("decoder.output.bias") == reconstructed
    assert rows.pop("encoder.input.weight") == (reconstructed if tied else read)
    assert rows == ({} if tied else {"decoder.output.weight": reconstructed})


def test_a_million_items_are_trained_on_without_anything_as_large() -> None:
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 20 * 1_000_000, size=400))
    matrix = csr_matrix(
        (np.ones(len(cells), np.float32), (cells // 1_000_000, cells % 1_000_000)), shape=(20, 1_000_000)
    )
    model = MultDAE(latent=2, negatives=100, batch_size=10, epochs=1).fit(matrix)

    assert np.isfinite(model.training_.curve[0]["loss"])
    assert model.embed_users(matrix).shape == (20, 2)


@pytest.mark.parametrize("kind", [MultDAE, MultVAE])
@pytest.mark.parametrize("negatives", [50, 5000])
def test_a_sample_as_large_as_the_catalogue_is_refused(kind: type[MultDAE], negatives: int) -> None:
    with pytest.raises(
        ModelError, match=rf"mult-.ae: negatives = {negatives}, and there are 50 items; .*negatives = 0"
    ):
        kind(latent=4, negatives=negatives).fit(histories())


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ModelError, match="mult-vae: tied weights need a hidden layer"):
        MultVAE(hidden=(), tied=True)
    with pytest.raises(ModelError, match="mult-dae: negatives = -1"):
        MultDAE(negatives=-1)
    with pytest.raises(ModelError, match="mult-dae: tied = 1"):
        MultDAE(tied=1)
    with pytest.raises(ValueError, match="a sample of 3 of 2 items"):
        Sampler.of(np.ones(2, int), 3)


@pytest.mark.parametrize(("negatives", "copies"), [(0, 4), (9, 3)])
def test_memory_is_counted_without_gradients_that_are_never_there(
    negatives: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("recae.autoencoder.training.require_memory", lambda device, needed, *_: asked.append(needed))
    model = MultDAE(latent=6, negatives=negatives, epochs=1)

    model.fit(histories())
    model.fit(histories(), FitOptions(validation=validation()))

    size = 4 * sum(tensor.numel() for tensor in model.state().values())
    assert asked == [copies * size, (copies + 1) * size]
