"""The density of codes: what was written and is none is refused, in one line, before anything is drawn from it."""

import pytest
import torch
from torch import Tensor

from recae.autoencoder.density import QUANTILES, CodeDensity

LATENT = 3


def state(**others: Tensor) -> dict[str, Tensor]:
    wide = LATENT + 1
    sound = {
        "weights": torch.tensor([0.25, 0.75]),
        "means": torch.zeros(2, wide),
        "factors": torch.eye(wide).repeat(2, 1, 1),
        "lengths": torch.linspace(1, 30, QUANTILES),
    }
    return sound | others


def test_a_sound_density_is_taken_over() -> None:
    codes, lengths = CodeDensity.of_state(state(), LATENT).sample(9, torch.Generator().manual_seed(0))
    assert codes.shape == (9, LATENT)
    assert 1 <= lengths.min() <= lengths.max() <= 30


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["weights", "means", "factors", "lengths"])
def test_one_number_that_is_not_finite_is_refused(name: str, wrong: float) -> None:
    damaged = state()
    damaged[name].view(-1)[-1] = wrong
    with pytest.raises(ValueError, match="the density of codes is not finite"):
        CodeDensity.of_state(damaged, LATENT)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"weights": torch.tensor([-0.5, 1.5])}, "weights are no shares of 1"),
        ({"weights": torch.tensor([0.5, 0.25])}, "weights are no shares of 1"),
        ({"factors": torch.zeros(2, LATENT + 1, LATENT + 1)}, "factors are no roots of covariances"),
        ({"lengths": torch.linspace(30, 1, QUANTILES)}, "lengths do not ascend"),
        ({"lengths": torch.linspace(-1, 1, QUANTILES)}, "lengths do not ascend"),
        ({"weights": torch.ones(0), "means": torch.ones(0, 4), "factors": torch.ones(0, 4, 4)}, "no shares of 1"),
    ],
)
def test_numbers_that_are_of_no_density_are_refused(damage: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        CodeDensity.of_state(state(**damage), LATENT)
    assert "\n" not in str(caught.value)
