"""Tensors are those that are wanted, or a line says which is not."""

from typing import Any

import pytest
import torch

from recae.tensors import Form, forms_of, require_tensors

WANTED: dict[str, Form] = {
    "square": (torch.float32, ("items", "items")),
    "bias": (torch.float32, ("items",)),
    "pair": ((torch.int32, torch.int64), (2,)),
}


def tensors(**others: Any) -> dict[str, torch.Tensor]:
    return {"square": torch.zeros(3, 3), "bias": torch.zeros(3), "pair": torch.zeros(2, dtype=torch.int64)} | others


def test_those_that_are_wanted_pass_whatever_the_sizes() -> None:
    require_tensors(tensors(), WANTED)
    require_tensors(tensors(square=torch.zeros(5, 5), bias=torch.zeros(5)), WANTED)
    require_tensors(tensors(pair=torch.zeros(2, dtype=torch.int32)), WANTED)
    require_tensors(tensors(), forms_of(tensors()))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"square": torch.zeros(3, 4)}, r"square has the shape \(3, 4\), and \(3, 3\) is wanted"),
        ({"square": torch.zeros(9)}, r"square has the shape \(9,\), and \(items, items\) is wanted"),
        ({"bias": torch.zeros(4)}, r"bias has the shape \(4,\), and \(3\) is wanted"),
        ({"pair": torch.zeros((), dtype=torch.int32)}, r"pair has the shape \(\), and \(2\) is wanted"),
        ({"bias": torch.zeros(3).double()}, "bias is torch.float64, and torch.float32 is wanted"),
        ({"pair": torch.zeros(2)}, "pair is torch.float32, and torch.int32 or torch.int64 is wanted"),
        ({"other\nline": torch.zeros(1)}, r"'other\\nline' is there, and unknown"),
    ],
)
def test_the_first_that_differs_is_named(others: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        require_tensors(tensors(**others), WANTED)


def test_one_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"^square is missing$"):
        require_tensors({}, WANTED)
