"""Recae on one GPU. Says so, and ends, where there is none.

    python benchmarks/gpu.py [--quick]

First every kernel against float64 on fresh random input; a wrong one ends the run. Then, on generated data of the shape
of MovieLens-20M (136,677 users × 20,108 items, 73 interactions a user): an epoch of Mult-VAE 600-200 through
`MultVAE.fit`, as users a second and as a share of the bfloat16 matrix product measured in the same run, beside the same
step written plainly in torch; the times of its parts; ranking; EASE. Last, a catalogue of a million items. Random input
throughout, medians, the device waited for before any clock is read. --quick: fewer users and batches.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from measure import machine, median, table
from plain import PlainMultVAE
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional

from recae.autoencoder.batches import Batch, Histories
from recae.kernels.compiled import can_compile
from recae.kernels.multinomial import log_likelihood
from recae.kernels.rows import weighted_rows
from recae.models.base import FitOptions
from recae.models.ease import EASE
from recae.models.mult_vae import MultVAE
from recae.progress import Step
from recae.ranking import top_n

USERS, ITEMS, PER_USER, HIDDEN, LATENT = 136_677, 20_108, 73, 600, 200
BATCHES = (500, 4_096, 24_576)
GOALS = {"users a second": 3e6, "ranked a second": 1e6, "EASE, seconds": 3.0, "million items, GB": 20.0}
FLOATING = 6 * (HIDDEN * ITEMS + HIDDEN * 2 * LATENT + LATENT * HIDDEN)
"""Operations a user: every product once forward, twice backward. The first layer is a sum of 73 rows: not counted."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def generated(users: int, items: int, seed: int = 0) -> csr_matrix:
    """Return histories of about PER_USER interactions, a few long and many short, of skewed popularity."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(1 / np.arange(10, items + 10) ** 0.8)
    rows = np.repeat(np.arange(users), 5 + rng.exponential(1.04 * PER_USER - 5, users).astype(int))
    columns = np.searchsorted(steps, rng.random(len(rows)) * steps[-1])
    matrix = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(users, items))
    matrix.data[:] = 1
    return matrix


def seconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Return the median of what some work takes on the device, by its events, after three times to warm up."""
    for _ in range(3):
        work()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return median([begin.elapsed_time(end) / 1e3 for begin, end in events])


def ceilings() -> tuple[float, float]:
    """Return the measured operations a second of bfloat16 matrix products, and bytes a second of a copy."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = 2 * 8192**3 / seconds(lambda: left @ right)
    block = torch.randn(2**29, device="cuda")
    other = torch.empty_like(block)
    return product, 2 * block.nbytes / seconds(lambda: other.copy_(block))


def random_batch(users: int, items: int, longest: int, seed: int) -> Batch:
    """Return a batch with an empty history, one of one item, and one with the same item five times; zeros among all."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest, users)
    lengths[:3] = (0, 1, 5)[:users]
    offsets = np.append(0, lengths.cumsum())
    chosen = rng.integers(0, items, offsets[-1])
    chosen[1:6] = chosen[1:2]
    values = rng.random(offsets[-1]) * (rng.random(offsets[-1]) < 0.7)
    parts = (offsets, np.repeat(np.arange(users), lengths), chosen, values.astype(np.float32))
    return Batch(*(torch.from_numpy(part).cuda() for part in parts))


def correctness() -> tuple[list[list[str]], bool]:
    """Return how far values and gradients are from float64, ‖difference‖ / ‖reference‖, and whether all may be."""
    lines, fine = [], True
    for number, shape in enumerate([(5, 7, 3), (131, 1000, 130), (1000, ITEMS, HIDDEN), (77, 300, 64)]):
        for precision, most in TOLERANCE.items():
            apart = distances(*shape, precision, number)
            fine &= all(distance < most for distance in apart)
            name = " × ".join(f"{size:,}" for size in shape)
            lines.append([name, str(precision).removeprefix("torch."), *(f"{distance:.1e}" for distance in apart)])
    return lines, fine


def distances(users: int, items: int, width: int, precision: torch.dtype, seed: int) -> list[float]:
    """Return them for the likelihood and its three gradients, then for the first layer and its gradient."""
    batch = random_batch(users, items, 150, seed)
    of_batch = (batch.offsets, batch.users, batch.items, batch.values)
    draw = torch.Generator("cuda").manual_seed(seed)
    shapes = ((users, width), (items, width), (items,))
    dense = [torch.randn(shape, device="cuda", generator=draw) * 0.3 for shape in shapes]
    slope = torch.randn(users, device="cuda", generator=draw)

    def likelihood(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return log_likelihood(features, weight, bias, *of_batch)

    def first_layer(weight: Tensor) -> Tensor:
        return weighted_rows(weight, batch.offsets, batch.items, batch.values).sum(1)

    def plain_likelihood(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        log_shares = torch.log_softmax(features @ weight.T + bias, 1)
        return batch.sum_by_user(batch.values * log_shares[batch.users, batch.items])

    def plain_first_layer(weight: Tensor) -> Tensor:
        return batch.sum_by_user(batch.values * weight.sum(1)[batch.items])

    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        found = [
            *values_and_gradients(likelihood, dense, slope),
            *values_and_gradients(first_layer, dense[1:2], slope),
        ]
    wide, slope = [tensor.double() for tensor in dense], slope.double()
    expected = [
        *values_and_gradients(plain_likelihood, wide, slope),
        *values_and_gradients(plain_first_layer, wide[1:2], slope),
    ]
    return [float((f.double() - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True)]


def values_and_gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], slope: Tensor) -> list[Tensor]:
    """Return what a function gives, and the gradients of its inputs."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = function(*leaves)
    value.backward(slope.to(value.dtype))
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def users_a_second(histories: csr_matrix, batch: int, epochs: int = 8) -> float:
    """Return how many users a second an epoch takes in, the median without the first three: they compile and record."""
    took: list[float] = []

    def listen(step: Step) -> None:
        took.append(step.figures["seconds"])

    model = MultVAE(hidden=(HIDDEN,), latent=LATENT, batch_size=batch, epochs=epochs)
    model.fit(histories, FitOptions(device="cuda", seed=0, listener=listen))
    return histories.shape[0] / median(took[3:])


def plain_users_a_second(histories: csr_matrix, batch: int) -> float:
    """Return the same of a step as it is usually written, with what costs nothing to write: bfloat16, fused Adam."""
    resident = Histories.of(histories, "cuda")
    model = PlainMultVAE(histories.shape[1], HIDDEN, LATENT).cuda()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    chosen = torch.randperm(histories.shape[0], device="cuda")[:batch]

    def step() -> None:
        cut = resident.batch(chosen)
        rows = torch.zeros(batch, histories.shape[1], device="cuda")
        rows[cut.users, cut.items] = cut.values
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits, mean, log_variance = model(rows)
            likelihood = (functional.log_softmax(logits.float(), dim=1) * rows).sum(dim=1)
            divergence = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(dim=1)
            loss = (0.5 * divergence - likelihood).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return batch / seconds(step)


def parts(histories: csr_matrix, users: int) -> Iterator[list[str]]:
    """Time the two kernels, forward and backward, on a batch."""
    batch = Histories.of(histories, "cuda").batch(torch.arange(users, device="cuda"))
    features = torch.randn(users, HIDDEN, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (0.05 * torch.randn(histories.shape[1], HIDDEN, device="cuda")).requires_grad_()
    bias = torch.zeros(histories.shape[1], device="cuda", requires_grad=True)
    entries = (batch.offsets, batch.users, batch.items, batch.values)

    def likelihood() -> Tensor:
        return log_likelihood(features, weight, bias, *entries)

    def first_layer() -> Tensor:
        return weighted_rows(weight, batch.offsets, batch.items, batch.values)

    for name, forward, inputs in (
        ("likelihood", likelihood, (features, weight, bias)),
        ("first layer", first_layer, (weight,)),
    ):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            value = forward()
            there = seconds(forward)
        slope = torch.randn_like(value)
        back = seconds(partial(torch.autograd.grad, value, inputs, slope, retain_graph=True))
        yield [f"{users:,}", name, f"{1e3 * there:.2f}", f"{1e3 * back:.2f}"]


def ranked_a_second(histories: csr_matrix, users: int = 50_000) -> float:
    """Return how many users a second get their top 100."""
    model = MultVAE(hidden=(HIDDEN,), latent=LATENT, batch_size=4_096, epochs=1)
    model.fit(histories, FitOptions(device="cuda"))
    some = histories[:users]
    return some.shape[0] / wall(lambda: top_n(model.score, some, 100))


def wall(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median of the seconds some work takes until the device is done, after once to warm up."""
    took = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - begun)
    return median(took[1:])


def million_items(users: int, hidden: int, tied: bool) -> tuple[float, float]:
    """Return the most memory, in GB, and the users a second of training with a million items, batch 4,096."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    histories = generated(users, 1_000_000)
    took: list[float] = []
    model = MultVAE(hidden=(hidden,), latent=min(LATENT, hidden), batch_size=4_096, epochs=3, tied=tied)
    model.fit(histories, FitOptions(device="cuda", listener=lambda step: took.append(step.figures["seconds"])))
    return torch.cuda.max_memory_reserved() / 1e9, users / took[-1]


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="fewer users and batches")
    quick = arguments.parse_args().quick
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing to measure.")
        return
    properties = torch.cuda.get_device_properties(0)
    compiled = can_compile(torch.empty(0, device="cuda").device)
    print(f"{properties.name}, {properties.total_memory / 1e9:.0f} GB; {machine('torch', 'numpy', 'scipy')}")
    print(f"Triton kernels: {'yes' if compiled else 'no; the same work by the operations of torch'}\n")

    lines, fine = correctness()
    header = ["users × items × width", "products in", "value", "to features", "to weight", "to bias", "rows", "to rows"]
    print(f"Relative distance from float64\n\n{table(header, lines)}\n")
    if not fine:
        sys.exit("A kernel is wrong; nothing is timed.")

    product, copy = ceilings()
    print(f"Ceilings: {product / 1e12:.0f} TFLOP/s of bfloat16 products, {copy / 1e12:.2f} TB/s of a copy\n")
    histories = generated(USERS // (8 if quick else 1), ITEMS)
    batches = BATCHES[:2] if quick else BATCHES
    lines = []
    for batch in batches:
        ours, plain = users_a_second(histories, batch), plain_users_a_second(histories, batch)
        share = ours * FLOATING / product
        lines.append([f"{batch:,}", f"{ours:,.0f}", f"{share:.0%}", f"{plain:,.0f}", f"{ours / plain:.1f}"])
    print(f"Training, users a second (goal {GOALS['users a second']:,.0f} at one of these)\n")
    print(f"{table(['batch', 'recae', 'of the ceiling', 'plain torch', 'ratio'], lines)}\n")
    lines = [line for batch in batches for line in parts(histories, batch)]
    print(f"{table(['batch', 'part', 'forward, ms', 'backward, ms'], lines)}\n")

    ranked = ranked_a_second(histories)
    took = wall(lambda: EASE().fit(histories, FitOptions(device="cuda")))
    lines = [
        ["top 100, users a second", f"{ranked:,.0f}", f"≥ {GOALS['ranked a second']:,.0f}"],
        ["EASE, seconds", f"{took:.2f}", f"≤ {GOALS['EASE, seconds']:.0f}"],
    ]
    for hidden, tied in ((128, False), (HIDDEN, True), (HIDDEN, False)):
        memory, speed = million_items(20_000 if quick else 40_000, hidden, tied)
        name = (
            f"a million items, batch 4,096, width {hidden}{', tied' if tied else ''}: GB ({speed:,.0f} users a second)"
        )
        lines.append([name, f"{memory:.1f}", f"≤ {GOALS['million items, GB']:.0f}"])
    print(table(["", "measured", "goal"], lines))


if __name__ == "__main__":
    main()
