"""What Mult-VAE and Mult-DAE minimise, next to the formulas of the paper."""

import numpy as np
import pytest
import torch
from long_training import histories

from recae.autoencoder import networks
from recae.autoencoder.batches import batch_of
from recae.errors import ModelError
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE, kl_weight


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
