"""EASE: the linear autoencoder of full rank, in closed form."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from recae.models.base import Positive, hyper_parameters
from recae.models.linear import FullRankRecommender


@hyper_parameters
class EASE(FullRankRecommender):
    """The items × items weights B with a zero diagonal that minimise |X - XB|² + l2·|B|²; a score is a row of XB.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data (2019), eq. 8: with P = (XᵀX + l2·I)⁻¹,
    B is I - P / diag(P), each column divided by its diagonal entry.
    """

    name: ClassVar[str] = "ease"

    l2: Annotated[Positive, Field(description="weight of |B|² in what is minimised")] = 400.0

    def penalties(self, users: Tensor) -> Tensor:
        """Return l2 for each item."""
        return torch.full_like(users, self.l2)
