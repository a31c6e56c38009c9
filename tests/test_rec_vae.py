"""RecVAE next to the formulas of its paper: the composite prior, the encoder, what either turn minimises and moves."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from long_training import histories, validation
from safetensors.torch import load_file
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from recae.autoencoder import networks
from recae.autoencoder.batches import batch_of
from recae.autoencoder.composite import log_composite_prior, log_normal
from recae.errors import Interrupted, ModelError
from recae.models.base import FitOptions
from recae.models.rec_vae import RecVAE
from recae.progress import Step

SMALL = {"hidden": 9, "layers": 4, "latent": 5, "batch_size": 64, "learning_rate": 0.01, "epochs": 3}

Weights = dict[str, Tensor]


def mixture(old_mean: Tensor, old_log_variance: Tensor) -> MixtureSameFamily:
    """The composite prior as torch's own distribution, in float64."""
    old_mean, old_log_variance = old_mean.double(), old_log_variance.double()
    none = torch.zeros_like(old_mean)
    means = torch.stack([none, old_mean, none], dim=-1)
    deviations = torch.stack([none, old_log_variance / 2, none + 5], dim=-1).exp()
    return MixtureSameFamily(Categorical(torch.tensor([0.15, 0.75, 0.1]).double()), Normal(means, deviations))


@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.01, 1.0, 30.0]), users=st.integers(1, 7))
def test_the_composite_prior_is_the_mixture_of_the_paper(seed: int, spread: float, users: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    code, mean = (spread * torch.randn(users, 5, generator=draws) for _ in range(2))
    log_variance = 3 * torch.randn(users, 5, generator=draws)
    code.requires_grad_()
    twin = code.detach().double().requires_grad_()

    found = log_composite_prior(code, mean, log_variance)
    # The distribution's own weights add up to one; those of the paper are 3/20, 3/4 and 1/10, which do too.
    expected = mixture(mean, log_variance).log_prob(twin)
    found.sum().backward()
    expected.sum().backward()

    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert code.grad is not None and twin.grad is not None
    torch.testing.assert_close(code.grad.double(), twin.grad, rtol=1e-3, atol=1e-4)


def test_the_prior_stays_finite_far_out_and_integrates_to_one() -> None:
    far = torch.tensor([[-1e4, 1e4, 0.0]])
    assert torch.isfinite(log_composite_prior(far, torch.zeros(1, 3), torch.full((1, 3), -30.0))).all()
    grid = torch.linspace(-1500, 1500, 300_001).double()[:, None]
    density = log_composite_prior(grid, torch.full((1, 1), 2.0).double(), torch.full((1, 1), -1.0).double()).exp()
    assert torch.trapezoid(density[:, 0], grid[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_log_normal_is_the_log_density_of_a_normal_distribution() -> None:
    code, mean, log_variance = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = Normal(mean, torch.exp(log_variance / 2)).log_prob(code)
    torch.testing.assert_close(log_normal(code, mean, log_variance), expected)


def encode(state: Weights, name: str, rows: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """The encoder on dense rows: each layer adds up all before it, then swish, then layer normalisation."""
    outputs: list[Tensor] = []
    inner = rows @ state[f"{name}.input.weight"] + state[f"{name}.input.bias"]
    for layer in range(layers):
        if layer:
            weight, bias = (state[f"{name}.layers.{layer - 1}.{part}"] for part in ("weight", "bias"))
            inner = outputs[-1] @ weight.T + bias + torch.stack(outputs).sum(0)
        swish = inner * torch.sigmoid(inner)
        centred = swish - swish.mean(1, keepdim=True)
        normal = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 0.1)
        outputs.append(normal * state[f"{name}.norms.{layer}.weight"] + state[f"{name}.norms.{layer}.bias"])
    mean, log_variance = (outputs[-1] @ state[f"{name}.output.weight"].T + state[f"{name}.output.bias"]).chunk(2, 1)
    return mean, log_variance


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def twin_loss(state: Weights, rows: Tensor, shown: Tensor, noise: Tensor, model: RecVAE, divergence: bool) -> Tensor:
    mean, log_variance = encode(state, "encoder", shown, model.layers)
    code = mean + noise * torch.exp(log_variance / 2)
    logits = code @ state["decoder.output.weight"].T + state["decoder.output.bias"]
    loss = -(torch.log_softmax(logits, 1) * rows).sum(1)
    if divergence:
        old = encode({name: t.detach() for name, t in state.items()}, "old", unit(rows), model.layers)
        prior = mixture(*old).log_prob(code)
        posterior = Normal(mean, torch.exp(log_variance / 2)).log_prob(code)
        loss = loss + model.gamma * rows.sum(1) * (posterior - prior).sum(1)
    return loss


def started(model: RecVAE, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    network = model.build_network(50).to_empty(device="cpu")
    network.initialise(generator)
    return network, generator


def test_both_turns_minimise_what_the_paper_says() -> None:
    model = RecVAE(**{**SMALL, "gamma": 0.03, "dropout": 0.3})
    network, _ = started(model)
    seen = csr_matrix(np.vstack([histories().toarray()[:20], np.zeros((1, 50))]), dtype=np.float32)
    batch, rows = batch_of(seen, "cpu"), torch.from_numpy(seen.toarray()).double()
    state = {name: tensor.double() for name, tensor in networks.weights(network).items()}

    for phase, corrupts in zip(model.phases(network, seen), (True, False), strict=True):
        example = phase.objective.draw(batch, torch.Generator().manual_seed(1))
        shown = torch.zeros_like(rows)
        shown[example.input.users, example.input.items] = example.input.values.double()
        kept = set(torch.unique(shown[0] / unit(rows)[0].max()).tolist())
        assert (
            (len(kept) == 2 and max(kept) == pytest.approx(1 / 0.7)) if corrupts else torch.allclose(shown, unit(rows))
        )
        loss = phase.objective.loss(example, {}).detach().double()
        expected = twin_loss(state, rows, shown, example.noise.double(), model, divergence=corrupts)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
        parts = [phase.objective.loss(example.part(*ends), {}) for ends in pairwise((0, 5, 20, 21))]
        torch.testing.assert_close(torch.cat(parts).detach().double(), loss, rtol=1e-5, atol=1e-5)


def test_training_equals_a_plain_dense_loop_in_turns() -> None:
    """The twin: dense rows in float64, all gradients, torch's own unfused Adam, one for the encoder, one to decode."""
    model = RecVAE(**SMALL, dropout=0.0, gamma=0.02)
    twin, generator = started(model, seed=3)
    rows = torch.from_numpy(histories().toarray()).double()
    state = {name: tensor.double().requires_grad_() for name, tensor in networks.weights(twin).items()}
    encoder, decoder = ([t for name, t in state.items() if name.startswith(part)] for part in ("encoder.", "decoder."))
    turns = [
        (encoder, torch.optim.Adam(encoder, lr=0.01, fused=False), 3),
        (decoder, torch.optim.Adam(decoder, lr=0.01), 1),
    ]
    for _ in range(3):
        for moved, optimiser, passes in turns:
            for _ in range(passes):
                for chosen in torch.randperm(200, generator=generator).split(64):
                    draws = torch.randn((len(chosen), 5), generator=generator).double()
                    loss = twin_loss(state, rows[chosen], unit(rows[chosen]), draws, model, moved is encoder).mean()
                    gradients = torch.autograd.grad(loss, moved)
                    for parameter, gradient in zip(moved, gradients, strict=True):
                        parameter.grad = gradient
                    optimiser.step()
            if moved is encoder:
                for name in [name for name in state if name.startswith("old.")]:
                    state[name] = state["encoder." + name.removeprefix("old.")].detach().clone()

    found = networks.weights(model.fit(histories(), FitOptions(seed=3)).network_)

    assert set(found) == {name for name in state if not name.startswith("old.")}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), state[name].detach(), rtol=1e-2, atol=2e-3)


def test_the_old_posterior_is_in_the_checkpoint_and_not_in_the_model(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    model = RecVAE(**SMALL)
    model.fit(histories(), FitOptions(checkpoint=path))

    saved = load_file(path)
    encoder = {name: t for name, t in saved.items() if name.startswith("weights.encoder.")}
    for name, tensor in encoder.items():
        assert torch.equal(saved[name.replace(".encoder.", ".old.")], tensor), name
    assert not [name for name in model.state() if name.startswith("old")]
    with pytest.raises(ValueError, match="no old posterior"):
        model.network_.old_posterior(batch_of(histories(), "cpu"))
    model.network_.remember()


@pytest.mark.parametrize("validated", [True, False])
def test_interrupted_and_resumed_is_the_same_training(validated: bool, tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    options = FitOptions(validation=validation() if validated else None)
    whole = RecVAE(**SMALL).fit(histories(), options).state()
    resumable = replace(options, checkpoint=tmp_path / "training.checkpoint")
    with pytest.raises(Interrupted, match="after 2 of at most 3 epochs"):
        RecVAE(**SMALL).fit(histories(), replace(resumable, listener=stop))
    resumed = RecVAE(**SMALL).fit(histories(), resumable).state()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_long_history_weighs_by_its_length() -> None:
    model = RecVAE(**SMALL, gamma=1.0, dropout=0.0)
    without = RecVAE(**SMALL, gamma=0.0, dropout=0.0)
    network, _ = started(model)
    seen = np.zeros((2, 50), np.float32)
    seen[0, :1], seen[1, :4] = 1, 1
    weighed = []
    for asked in (model, without):
        objective = asked.phases(network, csr_matrix(seen))[0].objective
        example = objective.draw(batch_of(csr_matrix(seen), "cpu"), torch.Generator().manual_seed(0))
        weighed.append(objective.loss(example, {}).detach())
    mean, log_variance = network.posterior(example.input)
    code = mean + example.noise * torch.exp(log_variance / 2)
    old = network.old_posterior(example.input)
    divergence = (log_normal(code, mean, log_variance) - log_composite_prior(code, *old)).sum(1).detach()
    torch.testing.assert_close(weighed[0] - weighed[1], divergence * torch.tensor([1.0, 4.0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", 0), ("hidden", (600,)), ("gamma", -0.1), ("encoder_passes", 0), ("decoder_passes", 1.5)],
)
def test_a_hyper_parameter_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"rec-vae: {key}"):
        RecVAE(**{key: value})


def test_early_stopping_leaves_the_best_weights_and_they_score() -> None:
    model = RecVAE(**{**SMALL, "epochs": 12, "patience": 2}).fit(histories(), FitOptions(validation=validation()))
    best = max(model.training_.curve, key=lambda figures: figures["ndcg_at_100"])["ndcg_at_100"]
    assert model.training_.curve[model.training_.best_epoch - 1]["ndcg_at_100"] == best
    assert math.isfinite(model.score(histories()).sum().item())
