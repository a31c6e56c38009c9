"""Adam: on all of a parameter where its gradient is dense, on the rows it has where it is row-sparse."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETAS, EPSILON = (0.9, 0.999), 1e-8

IN_CACHE = 2**17
"""How many entries of a row-sparse gradient a CPU works on at a time: with weights and moments they stay in a cache."""

FADED = 200
"""After so many updates without a gradient, nothing of a momentum is left: 0.9^200 of it."""

AVERAGE, LAST = "average", "last"

State = dict[str, Tensor]
"""`step`, the updates so far, the moments `exp_avg` and `exp_avg_sq` (the names are torch's), maybe an `average`, and
`last`, the update that last touched each row."""


@dataclass(eq=False)
class Adam:
    """Kingma and Ba 2015, with 2 · weight_decay · W added to the gradient of a matrix W (the penalty is λ‖W‖²).

    Of a parameter whose gradient is row-sparse, an update reads and writes only the rows that the gradient has, and
    first does to each what the updates it missed would have done: its moments fade, and it moves as far as its momentum
    goes on. So the weights are those of Adam on all rows, but that a row stands still until it is touched again, or
    until `settle`, and that weight decay only counts when it is touched. (In torch.optim.SparseAdam moments do not fade
    meanwhile, and momentum waits: rare items learn more slowly.)

    With `averaging` a, an average of each parameter follows its weights: after update t it is a share
    min(a, (1 + t) / (10 + t)) of what it was, and the rest the weights'. It is not for row-sparse gradients, because
    the averages of all the other rows would have to follow as well.

    `state` is by the number of the parameter.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float
    averaging: float = 0.0
    state: dict[int, State] = field(default_factory=dict)

    def prepare(self, tables: Sequence[Tensor] = ()) -> None:
        """Make the state of every parameter, as its first gradient would; those of `tables` will be row-sparse."""
        for number, parameter in enumerate(self.parameters):
            self.state[number] = self._fresh(parameter)
            if any(parameter is table for table in tables):
                self.state[number][LAST] = _untouched(parameter)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update what has a gradient."""
        dense: dict[bool, list[tuple[Tensor, Tensor, State]]] = {True: [], False: []}
        for number, parameter in enumerate(self.parameters):
            gradient, decays = parameter.grad, parameter.ndim > 1
            if gradient is None:
                continue
            state = self.state.get(number) or self.state.setdefault(number, self._fresh(parameter))
            if gradient.is_sparse:
                self._update_rows(parameter, gradient, state, decays)
            else:
                dense[decays].append((parameter, gradient, state))
        for decays, moved in dense.items():
            self._update(moved, decays)
            for weight, _, state in moved:
                if AVERAGE in state:
                    state[AVERAGE].lerp_(weight, (9 / (10 + state["step"])).clamp(min=1 - self.averaging))

    def swap_averages(self) -> None:
        """Exchange the weights and their averages; done twice, everything is where it was."""
        for number, state in self.state.items():
            if AVERAGE in state:
                parameter = self.parameters[number]
                parameter.data, state[AVERAGE] = state[AVERAGE], parameter.data

    @torch.no_grad()
    def settle(self) -> None:
        """Move the rows that were not touched of late as far as their momentum would have taken them by now."""
        for number, state in self.state.items():
            if LAST in state:
                rows = ((state[LAST] > 0) & (state[LAST] < state["step"])).nonzero().squeeze(1)
                for some in torch.split(rows, _at_a_time(self.parameters[number])):
                    momentum = state["exp_avg"].index_select(0, some)
                    chosen = some[momentum.view(len(some), self.parameters[number][:1].numel()).any(dim=1)]
                    with self._caught_up(self.parameters[number], chosen, state):
                        pass

    def _fresh(self, parameter: Tensor) -> State:
        state = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": _zeros_like(parameter),
            "exp_avg_sq": _zeros_like(parameter),
        }
        return state | ({AVERAGE: parameter.detach().clone()} if self.averaging else {})

    def _update(self, moved: Sequence[tuple[Tensor, Tensor, State]], decays: bool) -> None:
        parameters, gradients, states = zip(*moved, strict=True) if moved else ((), (), ())
        adam(
            list(parameters),
            list(gradients),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            lr=self.learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            eps=EPSILON,
            weight_decay=2 * self.weight_decay if decays else 0.0,
            amsgrad=False,
            maximize=False,
            fused=True,
        )

    def _update_rows(self, parameter: Tensor, gradient: Tensor, state: State, decays: bool) -> None:
        rows, values = _entries(gradient)
        if LAST not in state:
            state[LAST] = _untouched(parameter)
        at_a_time = _at_a_time(values)
        for chosen, part in zip(torch.split(rows, at_a_time), torch.split(values, at_a_time), strict=True):
            with self._caught_up(parameter, chosen, state) as (taken, last):
                # A step of its own, because the other parts are of the same update.
                moved = (taken["parameter"], part, {**taken, "step": state["step"].clone()})
                self._update([moved], decays)
                last += 1
        state["step"] += 1

    @contextmanager
    def _caught_up(self, parameter: Tensor, rows: Tensor, state: State) -> Iterator[tuple[State, Tensor]]:
        """Take rows out, do to them what the updates since their last one would have done, and put them back after."""
        whole = {"parameter": parameter.data, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        taken = {name: tensor.index_select(0, rows) for name, tensor in whole.items()}
        last = state[LAST][rows]
        weight, first, second = taken.values()
        updates = float(state["step"])
        missed = (updates - last).view(-1, *[1] * (weight.ndim - 1))
        # Update j of those missed moves by β₁ʲ m / √(β₂ʲ v): a geometric series.
        ratio = BETAS[0] / BETAS[1] ** 0.5
        series = (ratio - ratio ** (missed + 1)) / (1 - ratio)
        mean_scale, square_scale = (1 / (1 - beta ** max(1.0, updates)) for beta in BETAS)
        weight.addcdiv_(
            first * series, (second * square_scale).sqrt_().add_(EPSILON), value=-self.learning_rate * mean_scale
        )
        first.mul_((BETAS[0] ** missed).where(missed < FADED, 0))
        second.mul_(BETAS[1] ** missed)
        last.fill_(updates)
        yield taken, last
        for name, tensor in whole.items():
            tensor.index_copy_(0, rows, taken[name])
        state[LAST].index_copy_(0, rows, last)


def _untouched(parameter: Tensor) -> Tensor:
    return torch.zeros(len(parameter), device=parameter.device)


def _zeros_like(parameter: Tensor) -> Tensor:
    # The zeros of numpy, unlike torch's, take no memory until they are written to: of a large table, only the rows that
    # are ever touched do.
    if parameter.device.type == "cpu" and parameter.dtype == torch.float32:
        return torch.from_numpy(np.zeros(parameter.shape, np.float32))
    return torch.zeros_like(parameter)


def _at_a_time(rows: Tensor) -> int:
    return max(1, len(rows) if rows.is_cuda else IN_CACHE // max(1, rows[:1].numel()))


def _entries(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows that a row-sparse gradient has, ascending and distinct, and their values."""
    rows = gradient._indices()[0]
    if (rows.diff() > 0).all():  # they mostly are, but autograd does not hand on that the kernel knew it
        return rows, gradient._values()
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values()
