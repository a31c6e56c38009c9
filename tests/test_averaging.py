"""The average of the weights over the updates: what it is, that it is what is kept, and that it survives a stop."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from long_training import histories, validation
from torch import nn

from recae.autoencoder import networks
from recae.autoencoder.optimiser import Adam
from recae.errors import Interrupted, ModelError
from recae.models.base import FitOptions
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.models.rec_vae import RecVAE
from recae.progress import Step

SMALL = {"latent": 5, "batch_size": 50, "learning_rate": 0.02, "epochs": 6, "averaging": 0.9}
MODELS = [
    MultDAE(**SMALL, weight_decay=0.0),
    MultVAE(**SMALL, hidden=7),
    RecVAE(**SMALL, hidden=7, layers=2),
]
EACH = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def test_the_average_follows_the_weights_as_its_formula_says() -> None:
    draws = torch.Generator().manual_seed(0)
    matrix, bias = nn.Parameter(torch.randn(4, 3, generator=draws)), nn.Parameter(torch.randn(3, generator=draws))
    optimiser = Adam([matrix, bias], 0.1, 0.01, 0.8)
    average = matrix.detach().double()
    for update in range(1, 41):
        optimiser.zero_grad()
        (matrix.sum() ** 2 + (bias**2).sum()).backward()
        optimiser.step()
        kept = min(0.8, (1 + update) / (10 + update))
        average = kept * average + (1 - kept) * matrix.detach().double()
    weights = matrix.detach().clone()

    optimiser.swap_averages()
    torch.testing.assert_close(matrix.detach().double(), average, rtol=1e-5, atol=1e-6)
    optimiser.swap_averages()
    assert torch.equal(matrix, weights)


@EACH
def test_averaging_changes_what_is_kept_and_not_what_is_learned(model: MultDAE | MultVAE | RecVAE) -> None:
    averaged, plain = (replace(model, averaging=rate).fit(histories()) for rate in (0.9, 0.0))
    assert [epoch["loss"] for epoch in averaged.training_.curve] == [epoch["loss"] for epoch in plain.training_.curve]
    kept, learned = (networks.weights(one.network_) for one in (averaged, plain))
    assert all(not torch.equal(tensor, learned[name]) for name, tensor in kept.items())


@EACH
def test_what_is_validated_is_what_is_kept(model: MultDAE | MultVAE | RecVAE) -> None:
    scored = []

    def keep(step: Step) -> None:
        scored.append(step.figures["ndcg_at_100"])

    fitted = replace(model).fit(histories(), FitOptions(validation=validation(), listener=keep))
    best = fitted.training_.best_epoch
    again = replace(model, epochs=best).fit(histories())
    assert max(scored) == scored[best - 1]
    torch.testing.assert_close(again.score(histories()), fitted.score(histories()))


@EACH
@pytest.mark.parametrize("validated", [True, False])
def test_a_stopped_training_goes_on_with_the_same_averages(
    model: MultDAE | MultVAE | RecVAE, validated: bool, tmp_path: Path
) -> None:
    def stop(step: Step) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    options = FitOptions(validation=validation() if validated else None)
    whole = replace(model).fit(histories(), options).state()
    resumable = replace(options, checkpoint=tmp_path / "training.checkpoint")
    with pytest.raises(Interrupted):
        replace(model).fit(histories(), replace(resumable, listener=stop))
    resumed = replace(model).fit(histories(), resumable).state()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_sampled_softmax_has_no_averages() -> None:
    with pytest.raises(ModelError, match=r"mult-vae: averaging = 0.9 is for the whole softmax.*or negatives = 0"):
        replace(MODELS[1], negatives=10).fit(histories())
