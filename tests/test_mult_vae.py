"""What Mult-VAE and Mult-DAE minimise, next to the formulas of the paper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from long_training import histories, validation

from recae.autoencoder import networks
from recae.autoencoder.batches import batch_of
from recae.autoencoder.warm_start import LOG_VARIANCE, POWER, begin_at_spectrum
from recae.errors import Interrupted, ModelError
from recae.kernels import spectrum
from recae.models.base import FitOptions
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE, kl_weight
from recae.progress import Step


def test_kl_weight_rises_by_updates_up_to_its_cap() -> None:
    assert [kl_weight(updates, 0.2, 100) for updates in (0, 10, 20, 30, 1000)] == pytest.approx([0, 0.1, 0.2, 0.2, 0.2])
    assert kl_weight(0, 0.2, 0) == 0.2


@pytest.mark.parametrize("updates", [0, 70, 5000])
def test_the_objective_is_the_annealed_bound_of_the_paper(updates: int) -> None:
    model = MultVAE(hidden=9, latent=4, dropout=0.3, kl_cap=0.5, kl_anneal_steps=200)
    network = model.build_network(50).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    batch = batch_of(histories(), "cpu")

    (phase,) = model.phases(network, histories())
    schedule = phase.objective.schedule(updates)
    example = phase.objective.draw(batch, torch.Generator().manual_seed(1))
    loss = phase.objective.loss(example, schedule).detach()

    weight = {name: tensor.double().numpy() for name, tensor in networks.weights(network).items()}
    draws = torch.Generator().manual_seed(1)
    kept = torch.rand(len(batch.items), generator=draws).numpy() >= 0.3
    noise = torch.randn((len(batch), 4), generator=draws).double().numpy()
    rows = histories().toarray().astype(np.float64)
    corrupted = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    corrupted[batch.users, batch.items] *= kept / 0.7
    inner = np.tanh(corrupted @ weight["encoder.input.weight"] + weight["encoder.input.bias"])
    parameters = inner @ weight["encoder.layers.0.weight"].T + weight["encoder.layers.0.bias"]
    mean, log_variance = parameters[:, :4], parameters[:, 4:]
    latent = mean + noise * np.exp(log_variance / 2)
    outer = np.tanh(latent @ weight["decoder.layers.0.weight"].T + weight["decoder.layers.0.bias"])
    logits = outer @ weight["decoder.output.weight"].T + weight["decoder.output.bias"]
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    divergence = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(axis=1)
    beta = min(0.5, updates / 200)
    assert schedule == {"kl_weight": beta}
    np.testing.assert_allclose(loss, beta * divergence - (rows * log_shares).sum(axis=1), rtol=1e-5)
    parts = [phase.objective.loss(example.part(start, start + 50), schedule) for start in range(0, 200, 50)]
    torch.testing.assert_close(torch.cat(parts).detach(), loss)


@pytest.mark.parametrize("model", [MultVAE(hidden=(9, 7), latent=4, epochs=2), MultDAE(latent=4, epochs=2)])
def test_scores_and_vectors_repeat_and_multiply(model: MultVAE | MultDAE) -> None:
    model.fit(histories())
    scores = model.score(histories())

    assert torch.equal(model.score(histories()), scores)
    assert scores.dtype == torch.float32
    assert model.embed_users(histories()).shape == (200, 4)
    torch.testing.assert_close(model.embed_users(histories(), "retrieval") @ model.embed_items().T, scores)
    copy = type(model)(hidden=model.hidden, latent=4).restore({name: t.clone() for name, t in model.state().items()})
    assert torch.equal(copy.score(histories()), scores)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dropout", 1.0), ("latent", 0), ("hidden", (600, 0)), ("kl_cap", -0.1), ("epochs", 1.5), ("learning_rate", 0.0)],
)
def test_a_hyper_parameter_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"mult-vae: {key}"):
        MultVAE(**{key: value})


WARM = MultVAE(hidden=(), latent=6, warm_start=True, half_split=True, batch_size=50, epochs=3)


@pytest.mark.parametrize("latent", [6, 200])
def test_a_warm_start_is_the_filter_of_its_width(latent: int) -> None:
    # The rank of these 200 × 50 is 50: what is wider is drawn, and reads what the filter does not.
    model, seen = replace(WARM, latent=latent), histories()
    network = model.build_network(50).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    begin_at_spectrum(network, torch.Generator().manual_seed(1), seen)

    x = seen.toarray() > 0
    lengths, users = (np.maximum(x.sum(axis=axis), 1) for axis in (1, 0))
    values, vectors = np.linalg.eigh((x / lengths[:, None]).T @ x / np.sqrt(users * users[:, None]))
    values, vectors = np.clip(values[-latent:], 1e-12, None), vectors[:, -latent:]
    unit = x / np.sqrt(lengths)[:, None]
    expected = unit / users**0.5 @ vectors * values**POWER @ vectors.T * users**0.5

    mean, log_variance = network.posterior(network.read(batch_of(seen, "cpu")))
    kept = min(latent, 50)
    weight = network.decoder.output.weight[:, :kept]
    logits = (mean[:, :kept] @ weight.T).detach().double().numpy()
    unit_of_logits = (logits * expected).sum() / (expected**2).sum()
    assert 1 <= unit_of_logits <= 3000
    np.testing.assert_allclose(logits, unit_of_logits * expected, rtol=1e-3, atol=1e-3 * np.abs(logits).max())
    torch.testing.assert_close(mean[:, :kept].square().mean(dim=0), torch.ones(kept), rtol=1e-3, atol=1e-3)
    assert (log_variance == LOG_VARIANCE).all()


@given(seed=st.integers(0, 1000), count=st.integers(1, 9))
def test_subspace_iteration_comes_near_the_vectors_of_the_dense_way(seed: int, count: int) -> None:
    seen = histories()[np.random.default_rng(seed).permutation(200)[:80]].astype(np.float32)
    vectors, values = spectrum.nearly_leading(seen, count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "DENSE", 0)
        patch.setattr(spectrum, "SHARE", 1)
        patch.setattr(spectrum, "SPARE", 20)
        near, near_values = spectrum.nearly_leading(seen, count, seed)
    np.testing.assert_allclose(near.T @ near, np.eye(count), atol=1e-4)
    np.testing.assert_allclose(near_values, values, rtol=0.02)
    np.testing.assert_allclose(np.linalg.norm(seen @ near), np.linalg.norm(seen @ vectors), rtol=0.01)


def test_a_warm_start_is_the_same_every_time_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    options = FitOptions(seed=3, validation=validation())
    whole = WARM.fit(histories(), options).state()
    halted = replace(options, checkpoint=tmp_path / "checkpoint", listener=stop)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        replace(WARM).fit(histories(), halted)
    again = replace(WARM).fit(histories(), replace(options, checkpoint=tmp_path / "checkpoint")).state()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert WARM.network_.begin is None


def test_a_warm_start_is_refused_where_there_is_none() -> None:
    for wrong in ({"hidden": (9,)}, {"hidden": (), "likelihood": "poisson"}):
        with pytest.raises(ModelError, match="a warm start is for no hidden layers and a multinomial likelihood; give"):
            MultVAE(warm_start=True, **wrong)
