"""Time to quality: seconds until validation NDCG@100 of MovieLens-1M is what plain PyTorch ends with, and recae's.

    python benchmarks/quality.py [--data FOLDER] [--dir DIR] [--threads 2] [--seeds 3] [--only mult-vae] [--quick]

The reference is benchmarks/plain.py with the settings in PLAIN, trained until 20 epochs bring nothing better; what
counts is the best epoch and the seconds up to it. recae trains the same architecture from `--seeds` seeds with the
settings in QUICK, found on the same validation users (reaching a figure there is what is asked; test users are not
looked at), until it is as good. Both validate after every epoch, by the same code, inside the time. Each run is a
process of its own. With `--dir` it leaves its curve there as JSON, and what was run by the same code on the same
machine with the same data, versions and settings is not run again.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import measure
import ml_1m
import numpy as np
import plain
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

import recae
from recae.files import whole_file
from recae.metrics import Metric, find_hits, measure_users
from recae.models import build
from recae.models.base import FitOptions
from recae.progress import Step
from recae.ranking import top_n
from recae.validation import Validation

WATCHED = Metric("ndcg", 100)
PATIENCE = 20

PLAIN: Mapping[str, Mapping[str, Any]] = {
    "mult-vae": {"learning_rate": 1e-3, "batch_size": 500, "kl_cap": 1.0, "kl_anneal_steps": 2000},
    "rec-vae": {"learning_rate": 5e-4, "batch_size": 500, "gamma": 0.005, "encoder_passes": 3},
}
"""The reference's settings. RecVAE's are those of its published code, with the paper's gamma for MovieLens-20M.
Mult-VAE's divergence is annealed to 1 over 2,000 updates, as chosen on the validation users; the paper's goes to .2, at
a pace of 200,000 updates to 1."""

QUICK: Mapping[str, Mapping[str, Any]] = {
    "mult-vae": {"learning_rate": 3e-3, "batch_size": 250, "kl_anneal_steps": 4000, "averaging": 0.98},
    "rec-vae": {
        "gamma": 0.005,
        "learning_rate": 7e-4,
        "batch_size": 250,
        "encoder_passes": 1,
        "averaging": 0.98,
    },
}
"""What is quick on MovieLens-1M: averages allow a learning rate at which the weights themselves are unsteady."""

Curve = list[tuple[float, float]]
"""For each epoch the seconds since the start, and NDCG@100 of the validation users."""


class Reached(Exception):
    """The quality asked for is there."""


def train_plain(name: str, histories: csr_matrix, validation: Validation, epochs: int) -> Curve:
    """Return the curve of the plain model, up to `PATIENCE` epochs after its best."""
    begun = time.perf_counter()
    epoch, model = plain_mult_vae(histories) if name == "mult-vae" else plain_rec_vae(histories)
    curve: Curve = []
    while len(curve) < epochs and len(curve) - best_epoch(curve) < PATIENCE:
        epoch()
        reached = quality(lambda seen: plain.score(model, seen), validation)
        curve.append((time.perf_counter() - begun, reached))
    return curve


def plain_mult_vae(histories: csr_matrix) -> tuple[Callable[[], None], torch.nn.Module]:
    """Return what passes once over the users, and the model that it moves."""
    settings = dict(PLAIN["mult-vae"])
    model = plain.PlainMultVAE(histories.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.pop("learning_rate"))
    updates = 0

    def epoch() -> None:
        nonlocal updates
        updates = plain.train_epoch(model, optimiser, histories, updates=updates, **settings)

    return epoch, model


def plain_rec_vae(histories: csr_matrix) -> tuple[Callable[[], None], torch.nn.Module]:
    """Return what goes once through both turns, and the model that it moves."""
    settings = dict(PLAIN["rec-vae"])
    model = plain.PlainRecVAE(histories.shape[1], gamma=settings.pop("gamma"))
    rate = settings.pop("learning_rate")
    turns = [torch.optim.Adam(part.parameters(), lr=rate) for part in (model.encoder, model.decoder)]
    return lambda: plain.train_rec_vae_epoch(model, *turns, histories, **settings), model


def train_recae(name: str, histories: csr_matrix, validation: Validation, goal: float, seed: int, epochs: int) -> Curve:
    """Return the curve of recae's model, up to the epoch that reaches the goal."""
    curve: Curve = []
    begun = time.perf_counter()

    def look(step: Step) -> None:
        curve.append((time.perf_counter() - begun, step.figures[WATCHED.key]))
        if curve[-1][1] >= goal:
            raise Reached

    model = build(name, **QUICK[name], epochs=epochs, patience=epochs)
    with contextlib.suppress(Reached):
        model.fit(histories, FitOptions(seed=seed, validation=validation, listener=look))
    return curve


def quality(score: Callable[[csr_matrix], Tensor], validation: Validation) -> float:
    """Return mean NDCG@100, as recae's training measures it."""
    top = top_n(score, validation.history, WATCHED.k)
    targets = np.diff(validation.held_out.indptr)
    return float(np.nanmean(measure_users(WATCHED, find_hits(top.items, validation.held_out), targets)))


def best_epoch(curve: Curve) -> int:
    """Return the number of the first of the best epochs, counted from 1; 0 of none."""
    qualities = [reached for _, reached in curve]
    return 1 + qualities.index(max(qualities)) if qualities else 0


def run(given: argparse.Namespace) -> None:
    """Print one run's curve as JSON."""
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    histories = ml_1m.training_users(given.data)
    validation = Validation(*ml_1m.fold(given.data, "validation"))
    epochs = 3 if given.quick else 200
    if given.goal is None:
        curve = train_plain(given.only, histories, validation, epochs)
    else:
        curve = train_recae(given.only, histories, validation, given.goal, given.seed, epochs)
    print(json.dumps({"curve": curve}))


def circumstances(data: Path) -> dict[str, str]:
    """Return what seconds and quality depend on beside a run's settings: machine, versions, sources and data."""
    package = Path(recae.__file__).parent
    sources = hashlib.sha256()
    for path in map(Path, (*sorted(package.rglob("*.py")), __file__, plain.__file__, ml_1m.__file__)):
        sources.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return {
        "machine": measure.machine("torch", "numpy", "scipy"),
        "sources": sources.hexdigest(),
        "data": hashlib.sha256((data / ml_1m.ZIP).read_bytes()).hexdigest(),
    }


def curve_of(given: argparse.Namespace, name: str, seed: int, goal: float | None) -> Curve:
    """Return the curve of a run, from the file it left, or from a process of its own."""
    who = "plain" if goal is None else "recae"
    settings = [dict(PLAIN[name]), PATIENCE] if goal is None else [dict(QUICK[name]), goal]
    of_run = {"settings": settings, "quick": given.quick, "threads": given.threads, **circumstances(given.data)}
    path = given.dir / f"{who}-{name}-{seed}.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found["run"] == of_run:
            return [(seconds, reached) for seconds, reached in found["curve"]]
    arguments = ["--run", "--only", name, "--seed", seed, "--data", given.data, "--threads", given.threads]
    arguments += ["--quick"] if given.quick else []
    arguments += ["--goal", repr(goal)] if goal is not None else []
    told = measure.in_child(Path(__file__), *map(str, arguments), environment={"OMP_NUM_THREADS": str(given.threads)})
    with whole_file(path, overwrite=True) as draft:
        draft.write_text(json.dumps({"run": of_run, **told}))
    return [(seconds, reached) for seconds, reached in told["curve"]]


def row(given: argparse.Namespace, name: str) -> list[str]:
    """Return a model's line of the table."""
    reference = curve_of(given, name, 0, None)
    best = best_epoch(reference)
    seconds, goal = reference[best - 1]
    curves = [curve_of(given, name, seed, goal) for seed in range(given.seeds)]
    taken = [curve[-1][0] if curve[-1][1] >= goal else math.inf for curve in curves]
    each = [
        f"{one:.1f}" if one < math.inf else f"never (at most {curve[best_epoch(curve) - 1][1]:.4f})"
        for one, curve in zip(taken, curves, strict=True)
    ]
    middle = measure.median(taken)
    return [
        name,
        f"{goal:.4f}",
        f"{seconds:.1f}",
        str(best),
        ", ".join(each),
        ", ".join(str(len(curve)) for curve in curves),
        f"{middle / seconds:.3f}" if middle < math.inf else "–",
    ]


def main() -> None:
    """Run what has not been run yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ml_1m.add_argument(parser)
    parser.add_argument("--dir", type=Path, help="keep what was run in this folder, and go on with what is there")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=list(QUICK))
    parser.add_argument("--quick", action="store_true", help="three epochs of everything")
    for hidden, kind in {"--seed": int, "--goal": float}.items():
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given)
        return
    ml_1m.require(given.data)
    with tempfile.TemporaryDirectory() as fresh:
        given.dir = given.dir or Path(fresh)
        given.dir.mkdir(parents=True, exist_ok=True)
        rows = [row(given, name) for name in ([given.only] if given.only else QUICK)]
    print(measure.machine("torch", "numpy", "scipy"))
    print(f"{given.threads} threads; NDCG@100 of the 600 validation users, after every epoch, inside the time\n")
    header = [
        "model",
        "plain's best",
        "plain's seconds to it",
        "epochs",
        "recae's seconds (each seed)",
        "epochs",
        "ratio (median)",
    ]
    print(measure.table(header, rows))


if __name__ == "__main__":
    main()
