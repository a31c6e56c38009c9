"""VampVAE next to the formulas of its paper: gates, two levels, a prior made of the encoder, an update."""

from collections.abc import Mapping
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
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from recae.autoencoder import networks
from recae.autoencoder.batches import batch_of
from recae.autoencoder.hierarchical import HierarchicalNetwork, log_mixture
from recae.errors import Diverged, Interrupted, ModelError
from recae.models.base import FitOptions
from recae.models.vamp_vae import VampVAE
from recae.progress import Step

SMALL = {"hidden": 9, "latent": 6, "pseudo_inputs": 4, "batch_size": 64, "learning_rate": 0.01, "epochs": 3}

Normals = tuple[Tensor, Tensor]


def normal(mean: Tensor, log_variance: Tensor) -> Independent:
    return Independent(Normal(mean, torch.exp(log_variance / 2)), 1)


def vamp(mean: Tensor, log_variance: Tensor) -> MixtureSameFamily:
    """The mixture over pseudo-inputs as torch's own distribution."""
    return MixtureSameFamily(Categorical(torch.ones(len(mean)).double()), normal(mean, log_variance))


@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.01, 1.0, 10.0]), users=st.integers(1, 5))
def test_the_prior_is_the_mixture_of_the_posteriors_of_pseudo_inputs(seed: int, spread: float, users: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    code, mean = (spread * torch.randn(count, 5, generator=draws) for count in (users, 7))
    log_variance = torch.randn(7, 5, generator=draws)
    given_to_both = [tensor.clone().requires_grad_() for tensor in (code, mean, log_variance)]
    twins = [tensor.double().requires_grad_() for tensor in (code, mean, log_variance)]

    found = log_mixture(*given_to_both)
    expected = vamp(*twins[1:]).log_prob(twins[0])
    found.sum().backward()
    expected.sum().backward()

    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)
    for one, twin in zip(given_to_both, twins, strict=True):
        assert one.grad is not None and twin.grad is not None
        torch.testing.assert_close(one.grad.double(), twin.grad, rtol=1e-2, atol=1e-3)


def started(model: VampVAE, items: int = 50) -> HierarchicalNetwork:
    network = model.build_network(items).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    return network


def twin_loss(state: Mapping[str, Tensor], rows: Tensor, shown: Tensor, noise: Tensor, weight: float) -> Tensor:
    """What an update minimises, from dense rows, line by line."""

    def affine(name: str, inputs: Tensor) -> Tensor:
        return inputs @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def gated(name: str, inputs: Tensor) -> Tensor:
        value, gate = affine(f"{name}.linear", inputs).chunk(2, dim=1)
        return value * torch.sigmoid(gate)

    def conditional(name: str, inputs: Tensor) -> Normals:
        mean, log_variance = affine(f"{name}.parameters_of", inputs).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def encoded_top(first: Tensor) -> Normals:
        return conditional("top", gated("top_layer", first))

    looks = (shown @ state["input.weight"] + state["input.bias"]).chunk(4, dim=1)
    first_of_top, first_of_bottom = (looks[place] * torch.sigmoid(looks[place + 1]) for place in (0, 2))
    posterior_top = encoded_top(first_of_top)
    noise_of_bottom, noise_of_top = noise.chunk(2, dim=1)
    top = posterior_top[0] + noise_of_top * torch.exp(posterior_top[1] / 2)
    joint = torch.cat([first_of_bottom, gated("seen_top", top)], dim=1)
    posterior_bottom = conditional("bottom", gated("joint", joint))
    bottom = posterior_bottom[0] + noise_of_bottom * torch.exp(posterior_bottom[1] / 2)

    prior_bottom = conditional("prior.bottom", gated("prior.layers.1", gated("prior.layers.0", top)))
    divergence = (
        normal(*posterior_top).log_prob(top)
        + normal(*posterior_bottom).log_prob(bottom)
        - normal(*prior_bottom).log_prob(bottom)
        - vamp(*encoded_top(state["prior.pseudo_inputs"])).log_prob(top)
    )
    decoded = torch.cat([gated("decoder.bottom", bottom), gated("decoder.top", top)], dim=1)
    logits = affine("decoder.output", gated("decoder.joint", decoded))
    return weight * divergence - (torch.log_softmax(logits, dim=1) * rows).sum(dim=1)


def test_an_update_minimises_what_the_paper_says() -> None:
    model = VampVAE(**SMALL, dropout=0.3)
    network = started(model)
    seen = csr_matrix(np.vstack([histories().toarray()[:20], np.zeros((1, 50))]), dtype=np.float32)
    rows = torch.from_numpy(seen.toarray()).double()
    state = {name: tensor.double().requires_grad_() for name, tensor in networks.weights(network).items()}
    (phase,) = model.phases(network, seen)
    example = phase.objective.draw(batch_of(seen, "cpu"), torch.Generator().manual_seed(1))
    shown = torch.zeros_like(rows)
    shown[example.input.users, example.input.items] = example.input.values.double()

    loss = phase.objective.loss(example, {"kl_weight": 0.4})
    expected = twin_loss(state, rows, shown, example.noise.double(), 0.4)
    loss.sum().backward()
    expected.sum().backward()

    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-3)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        gradient = state[name].grad
        assert gradient is not None and gradient.any(), name
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-3, atol=1e-3)
    parts = [phase.objective.loss(example.part(*ends), {"kl_weight": 0.4}) for ends in pairwise((0, 5, 20, 21))]
    torch.testing.assert_close(torch.cat(parts), loss, rtol=1e-5, atol=1e-4)


def test_what_passes_gated_layers_keeps_its_size_at_first_and_no_item_stands_out() -> None:
    network = started(VampVAE(hidden=400, latent=200))
    seen = batch_of(histories()[:64], "cpu")
    with torch.no_grad():
        first = network.input(network.read(seen))
        deep = network.top_layer(network.top_layer(first[:, :400]))
        logits = network.decoder(network.latent(network.read(seen)))
    assert 0.7 < deep.std() / first[:, :400].std() < 1.4
    assert 0 < logits.std() < 0.1


def test_the_weight_of_the_divergence_grows_to_its_cap() -> None:
    model = VampVAE(**SMALL, kl_cap=0.3, kl_anneal_steps=10)
    (phase,) = model.phases(started(model), histories())
    assert [phase.objective.schedule(updates)["kl_weight"] for updates in (0, 1, 3, 9)] == [0, 0.1, 0.3, 0.3]


def test_the_prior_is_in_the_checkpoint_and_not_in_the_model(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    model = VampVAE(**SMALL).fit(histories(), FitOptions(checkpoint=path))
    saved = load_file(path)
    assert saved["weights.prior.pseudo_inputs"].shape == (4, 9)
    assert not [name for name in model.state() if "prior" in name]
    with pytest.raises(ValueError, match="no prior"):
        model.network_.log_prior(torch.zeros(1, 6))


@pytest.mark.parametrize("validated", [True, False])
def test_interrupted_and_resumed_is_the_same_training(validated: bool, tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    options = FitOptions(validation=validation() if validated else None)
    whole = VampVAE(**SMALL).fit(histories(), options).state()
    resumable = replace(options, checkpoint=tmp_path / "training.checkpoint")
    with pytest.raises(Interrupted, match="after 2 of at most 3 epochs"):
        VampVAE(**SMALL).fit(histories(), replace(resumable, listener=stop))
    resumed = VampVAE(**SMALL).fit(histories(), resumable).state()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_codes_that_are_not_finite_end_in_one_line() -> None:
    with pytest.raises(Diverged, match=r"^vamp-vae: what it has learned is not finite; lower learning_rate \(it is"):
        VampVAE(**{**SMALL, "epochs": 1, "batch_size": 1000, "learning_rate": 1e9}).fit(histories())


def test_scores_are_those_of_the_posteriors_mean_on_both_levels() -> None:
    model = VampVAE(**SMALL).fit(histories())
    network = model.network_
    batch = network.read(batch_of(histories()[:9], "cpu"))
    with torch.no_grad():
        code, mean, _ = network.posterior(batch, torch.zeros(9, 6))
        assert torch.equal(code, mean)
        torch.testing.assert_close(model.score(histories()[:9]), network.decoder(mean))
    torch.testing.assert_close(model.embed_users(histories()[:9]), mean)
    other = network.code(batch, torch.ones(9, 6))
    assert not torch.isclose(other, mean).any()


@pytest.mark.parametrize(
    ("key", "value"), [("latent", 0), ("hidden", (600,)), ("kl_cap", -0.1), ("pseudo_inputs", 0), ("dropout", 1.0)]
)
def test_a_hyper_parameter_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"vamp-vae: {key}"):
        VampVAE(**{key: value})


def test_an_odd_width_has_no_two_levels() -> None:
    with pytest.raises(ModelError, match=r"vamp-vae: latent = 7 is for two levels of the same width; give an even"):
        VampVAE(latent=7)
