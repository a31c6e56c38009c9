"""Adam next to torch's, and its row-sparse updates next to a loop over rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from recae.autoencoder.optimiser import FADED, Adam


def table(rows: int, width: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)))


def sparse(rows: list[int], like: Tensor, seed: int) -> Tensor:
    values = torch.randn(len(rows), *like.shape[1:], generator=torch.Generator().manual_seed(seed))
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.long), values, like.shape, check_invariants=True)


class RowByRow:
    """The twin: the formulas of the paper in float64, a row and a missed update after the other."""

    def __init__(self, parameter: Tensor, learning_rate: float, decay: float) -> None:
        self.weight = parameter.detach().double().clone()
        self.first, self.second = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.last = [0] * len(parameter)
        self.learning_rate, self.decay, self.step = learning_rate, decay, 0

    def update(self, gradient: Tensor) -> None:
        dense = gradient.to_dense().double()
        touched = set(gradient._indices()[0].tolist())
        for row in touched:
            self.catch_up(row)
        self.step += 1
        for row in touched:
            slope = dense[row] + 2 * self.decay * self.weight[row]
            self.first[row] = 0.9 * self.first[row] + 0.1 * slope
            self.second[row] = 0.999 * self.second[row] + 0.001 * slope**2
            self.move(row, self.step)
            self.last[row] = self.step

    def catch_up(self, row: int) -> None:
        if self.last[row] == 0:
            return
        for _ in range(self.last[row], self.step):
            self.first[row] *= 0.9
            self.second[row] *= 0.999
            # Missed updates are corrected for the start of the moments as the latest of them would have been.
            self.move(row, self.step)
        self.last[row] = self.step

    def move(self, row: int, step: int) -> None:
        mean, spread = self.first[row] / (1 - 0.9**step), self.second[row] / (1 - 0.999**step)
        self.weight[row] -= self.learning_rate * mean / (spread.sqrt() + 1e-8)


@given(
    touched=st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=6),
    decay=st.sampled_from([0.0, 0.03]),
    in_cache=st.sampled_from([4, 1000]),
    settled=st.booleans(),
)
def test_a_row_sparse_update_is_that_of_a_loop_over_rows(
    touched: list[list[int]], decay: float, in_cache: int, settled: bool
) -> None:
    parameter = table(9, 4)
    twin, adam = RowByRow(parameter, 0.05, decay), Adam([parameter], 0.05, decay)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("recae.autoencoder.optimiser.IN_CACHE", in_cache)
        for seed, rows in enumerate(touched):
            parameter.grad = sparse(rows, parameter, seed)  # rows in any order, some of them twice
            twin.update(parameter.grad)
            adam.step()
        if settled:
            adam.settle()
            for row in range(9):
                twin.catch_up(row)

    for found, expected in (
        (parameter.detach(), twin.weight),
        (adam.state[0]["exp_avg"], twin.first),
        (adam.state[0]["exp_avg_sq"], twin.second),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    untouched = sorted(set(range(9)) - {row for rows in touched for row in rows})
    assert torch.equal(parameter[untouched], table(9, 4)[untouched])
    assert adam.state[0]["step"] == len(touched)


def test_what_is_left_of_a_momentum_is_paid_however_long_a_row_waits() -> None:
    ours, dense = table(3, 4), table(3, 4)
    adam, reference = Adam([ours], 0.01, 0.0), torch.optim.Adam([dense], lr=0.01)
    for update in range(1000 + FADED):
        gradient = sparse([0] if update == 990 else [1, 2], ours, update)
        ours.grad, dense.grad = gradient, gradient.to_dense()
        adam.step()
        reference.step()
    adam.settle()

    moved = (dense - table(3, 4))[0].norm()
    assert (ours - dense)[0].norm() < 0.2 * moved  # the start of the moments is corrected for a little differently
    settled = {name: tensor.clone() for name, tensor in adam.state[0].items()}
    adam.settle()
    for name, tensor in adam.state[0].items():
        assert torch.equal(tensor, settled[name]), name


def test_where_every_row_is_touched_it_is_the_dense_update() -> None:
    dense, rows, bias = table(50, 8), table(50, 8), nn.Parameter(torch.zeros(50))
    as_rows, as_one = Adam([rows, bias], 0.01, 0.02), Adam([dense], 0.01, 0.02)
    for seed in range(5):
        gradient = sparse(list(range(50)), dense, seed)
        dense.grad, rows.grad = gradient.to_dense(), gradient
        bias.grad = sparse([3, 40], bias, seed)
        as_rows.step()
        as_one.step()

    torch.testing.assert_close(rows, dense)
    assert bias.detach().nonzero().squeeze(1).tolist() == [3, 40]


def test_row_sparse_and_settled_it_ends_where_dense_adam_does_and_lazily_it_would_not() -> None:
    drawn = torch.Generator().manual_seed(0)
    ours, dense, lazy = (table(30, 4) for _ in range(3))
    adam = Adam([ours], 0.01, 0.0)
    others = torch.optim.Adam([dense], lr=0.01), torch.optim.SparseAdam([lazy], lr=0.01)
    slope = torch.randn(30, 4, generator=drawn)
    for _ in range(400):
        rows = (torch.rand(30, generator=drawn) < torch.linspace(0.01, 0.5, 30)).nonzero()[:, 0]
        noisy = slope[rows] + torch.randn(len(rows), 4, generator=drawn)
        gradient = torch.sparse_coo_tensor(rows[None], noisy, (30, 4), check_invariants=True)
        ours.grad, dense.grad, lazy.grad = gradient, gradient.to_dense(), gradient.clone()
        for optimiser in (adam, *others):
            optimiser.step()
    adam.settle()

    with torch.no_grad():
        moved = (dense - table(30, 4)).norm()
        assert (ours - dense).norm() < 0.03 * moved
        assert (lazy - dense).norm() > 0.1 * moved


def test_with_dense_gradients_it_is_the_adam_of_torch() -> None:
    ours = [table(6, 5), nn.Parameter(torch.ones(5)), table(2, 2)]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    adam = Adam(ours, 0.01, 0.1)
    reference = torch.optim.Adam(
        [{"params": [p for p in theirs if p.ndim > 1], "weight_decay": 0.2}, {"params": theirs[1:2]}], lr=0.01
    )
    for seed in range(4):
        for one, other in zip(ours[:2], theirs[:2], strict=True):
            one.grad = other.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(seed))
        adam.step()
        reference.step()
        adam.zero_grad()
        assert all(p.grad is None for p in ours)

    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    assert sorted(adam.state) == [0, 1]  # the third never had a gradient


def test_it_goes_on_from_its_state_with_the_same_bits() -> None:
    whole, first = table(9, 4), table(9, 4)
    adam, before = Adam([whole], 0.05, 0.01), Adam([first], 0.05, 0.01)
    second = nn.Parameter(torch.empty(0))
    for seed in range(6):
        if seed == 3:
            second = nn.Parameter(first.detach().clone())
            kept = {number: {name: t.clone() for name, t in of.items()} for number, of in before.state.items()}
            before = Adam([second], 0.05, 0.01, state=kept)
        for parameter, optimiser in ((whole, adam), (second if seed >= 3 else first, before)):
            parameter.grad = sparse([seed, 8, seed], parameter, seed)
            optimiser.step()

    assert torch.equal(second, whole)
