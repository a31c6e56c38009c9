"""The decorator that makes a model out of its hyper-parameters."""

import inspect
from dataclasses import FrozenInstanceError, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import PositiveInt
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import DeviceError, Diverged, ModelError
from recae.models.base import (
    Exponent,
    FitOptions,
    NonNegative,
    Positive,
    Unit,
    Widths,
    hyper_parameters,
    hyper_parameters_of,
)


@hyper_parameters
class Toy:
    """A model of nothing."""

    name: ClassVar[str] = "toy"

    layers: PositiveInt = 2
    dropout: Unit = 0.5
    l2: Positive = 1.0
    decay: NonNegative = 0.0
    hidden: Widths = (600,)
    power: Exponent = 0.5

    def fit(self, histories: csr_matrix, options: FitOptions = FitOptions()) -> "Toy":
        """Divide the number of items by their decay."""
        self.learned_ = np.array(histories.shape[1], np.float32) / np.float32(self.decay)
        return self

    def state(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return {"learned": torch.tensor(self.learned_), "nothing": torch.empty(0), "whole": torch.arange(3)}


def test_what_was_learned_is_finite_or_refused_in_one_line_without_a_warning() -> None:
    seen = csr_matrix(np.eye(3))
    assert Toy(decay=2.0).fit(seen).learned_ == 1.5
    with pytest.raises(Diverged) as caught:
        Toy(l2=2e5).fit(seen)
    assert str(caught.value) == "toy: what it has learned is not finite; lower l2 (it is 200000)"
    with pytest.raises(Diverged, match=r"not finite; scale the values down \(they reach 1e\+30\)$"):
        Toy().fit(1e30 * seen)
    with pytest.raises(Diverged, match=r"not finite; give values that are finite numbers$"):
        Toy().fit(np.nan * seen)
    with pytest.raises(Diverged, match=r"not finite; give settings nearer to their defaults$"):
        Toy().fit(seen)


def test_a_model_shows_its_hyper_parameters_and_has_their_defaults() -> None:
    assert repr(Toy(layers=3)) == "Toy(layers=3, dropout=0.5, l2=1.0, decay=0.0, hidden=(600,), power=0.5)"
    assert list(inspect.signature(Toy).parameters) == ["layers", "dropout", "l2", "decay", "hidden", "power"]


def test_hyper_parameters_make_the_same_model_again() -> None:
    toy = Toy(layers=7, hidden=(5, 6))
    usual = {"dropout": 0.5, "l2": 1.0, "decay": 0.0, "power": 0.5}
    assert hyper_parameters_of(toy) == {"layers": 7, **usual, "hidden": (5, 6)}
    assert Toy(**hyper_parameters_of(toy)) == toy
    assert replace(toy, layers=2) == Toy(hidden=(5, 6))


@pytest.mark.parametrize(("given", "widths"), [(9, (9,)), ([9, 8], (9, 8)), ((), ()), ([], ())])
def test_widths_are_a_number_or_any_sequence(given: Any, widths: tuple[int, ...]) -> None:
    assert Toy(hidden=given).hidden == widths


def test_a_whole_number_is_a_number() -> None:
    assert Toy(l2=400).l2 == 400.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", 0),
        ("layers", -1),
        ("layers", 2.0),
        ("layers", "2"),
        ("layers", True),
        ("layers", None),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("l2", 0.0),
        ("l2", float("nan")),
        ("l2", float("inf")),
        ("l2", 1e39),
        ("decay", 1e300),
        ("power", 2.1),
        ("l2", "1"),
        ("l2", True),
        ("decay", -1e-9),
        ("hidden", (0,)),
        ("hidden", ("a",)),
        ("hidden", "600"),
    ],
)
def test_a_wrong_type_or_range_is_one_line_with_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(ModelError) as caught:
        Toy(**{key: value})
    message = str(caught.value)
    assert message.startswith(f"toy: {key} = ")
    assert "\n" not in message
    assert caught.value.__suppress_context__


def test_an_unknown_key_names_the_nearest() -> None:
    arguments: dict[str, Any] = {"layer": 2}
    with pytest.raises(ModelError, match="toy has no hyper-parameter 'layer'; did you mean 'layers'"):
        Toy(**arguments)


def test_a_hyper_parameter_needs_its_name() -> None:
    make: Any = Toy
    with pytest.raises(ModelError, match="toy takes its hyper-parameters by name: layers, dropout"):
        make(2)


def test_fit_options_do_not_change() -> None:
    options: Any = FitOptions()
    with pytest.raises(FrozenInstanceError):
        options.seed = 1


@pytest.mark.parametrize("there", [False, True])
def test_the_device_of_fit_options_becomes_what_it_stands_for(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert FitOptions().device == "cpu"
    assert FitOptions(device="auto").device == ("cuda" if there else "cpu")
    assert replace(FitOptions(), device="auto") == FitOptions(device="cuda" if there else "cpu")


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", "no CUDA device here; "),
        ("gpu", "unknown device 'gpu'; known: auto, cpu, cuda"),
        ("cuda:0", "unknown device 'cuda:0'; known: auto, cpu, cuda"),
        (None, "unknown device None; known: auto, cpu, cuda"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(device: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"^{said}") as caught:
        FitOptions(device=device)
    assert "\n" not in str(caught.value)
