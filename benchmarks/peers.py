"""Seconds that an epoch of MovieLens-1M takes Mult-VAE 600-200: recae, plain dense PyTorch, RecPack and RecBole.

    python benchmarks/peers.py [--data FOLDER] [--env DIR] [--threads 2] [--epochs 3] [--rounds 3]

The peers are installed from the package index into an environment of their own, once. Each is trained by its own
training step in a process of its own: one epoch to warm up, `--epochs` that count; then the next one's turn,
`--rounds` times round. Batch 500, dropout .5, Adam 1e-3 for all; an epoch is the training pass alone. RecBole divides
the noise of the code by a hundred; no matter here.

What today's numpy, pandas, scipy and torch ask of RecPack 0.3.6 and RecBole 1.2.1:
- both are installed without what they depend on, because RecPack wants numpy 1 and pandas 2, and RecBole a ray from
  before Python 3.11's last releases, for tuning; what their models import is listed in IMPORTED;
- RecBole's configuration looks up three names that numpy 2 no longer has: `mend_numpy` gives them back;
- RecPack's model needs nothing else. Neither's training step is touched.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import measure
import ml_1m
import numpy as np
from scipy.sparse import csr_matrix

PEERS = ("recpack==0.3.6", "recbole==1.2.1")
IMPORTED = (
    "torch==2.13.0",
    "numpy==2.4.6",
    "scipy==1.17.1",
    "pandas==3.1.1",
    "scikit-learn==1.9.1",
    "PyYAML==6.0.3",
    "tqdm==4.70.1",
    "colorama==0.4.4",
    "colorlog==4.7.2",
    "psutil==7.2.2",
    "tensorboard==2.21.0",
    "texttable==1.7.2",
)
HIDDEN, LATENT, DROPOUT, RATE, BATCH = 600, 200, 0.5, 1e-3, 500

Epoch = Callable[[], object]


def recpack(histories: csr_matrix) -> Iterator[float]:
    """Yield the seconds of one epoch after the other."""
    from recpack.algorithms.mult_vae import MultVAE

    model = MultVAE(
        batch_size=BATCH,
        learning_rate=RATE,
        dim_hidden_layer=HIDDEN,
        dim_bottleneck_layer=LATENT,
        dropout=DROPOUT,
        seed=0,
    )
    model._init_model(histories)
    model.model_.train()
    yield from timed(lambda: model._train_epoch(histories))


def recbole(histories: csr_matrix) -> Iterator[float]:
    """Yield the seconds of one epoch after the other; RecBole reads a file, and leaves folders where it runs."""
    mend_numpy()
    del sys.argv[1:]  # RecBole would read it
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender.multivae import MultiVAE
    from recbole.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("ml").mkdir()
        rows = "\n".join(f"{user}\t{item}" for user, item in zip(*histories.nonzero(), strict=True))
        Path("ml/ml.inter").write_text(f"user_id:token\titem_id:token\n{rows}\n")
        settings = {
            "data_path": folder,
            "use_gpu": False,
            "load_col": {"inter": ["user_id", "item_id"]},
            "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": "user", "mode": "full"},
            "train_neg_sample_args": None,
            "train_batch_size": BATCH,
            "learning_rate": RATE,
            "mlp_hidden_size": [HIDDEN],
            "latent_dimension": 2 * LATENT,  # mean and log-variance
            "dropout_prob": DROPOUT,
        }
        config = Config(model="MultiVAE", dataset="ml", config_dict=settings)
        training, _, _ = data_preparation(config, create_dataset(config))
        trainer = Trainer(config, MultiVAE(config, training.dataset))
        yield from timed(lambda: trainer._train_epoch(training, 0))


def plain(histories: csr_matrix) -> Iterator[float]:
    """Yield the seconds of one epoch after the other."""
    import torch
    from plain import PlainMultVAE, train_epoch

    model = PlainMultVAE(histories.shape[1], HIDDEN, LATENT, DROPOUT)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    yield from timed(lambda: train_epoch(model, optimiser, histories, batch_size=BATCH))


def recae(histories: csr_matrix, epochs: int) -> Iterator[float]:
    """Yield the seconds of each epoch, as the training tells them."""
    from recae.models.mult_vae import MultVAE

    model = MultVAE(
        hidden=HIDDEN, latent=LATENT, dropout=DROPOUT, learning_rate=RATE, batch_size=BATCH, epochs=epochs
    ).fit(histories)
    yield from (epoch["seconds"] for epoch in model.training_.curve)


def timed(epoch: Epoch) -> Iterator[float]:
    """Yield the seconds of one epoch after the other."""
    while True:
        begun = time.perf_counter()
        epoch()
        yield time.perf_counter() - begun


def mend_numpy() -> None:
    """Give numpy 2 the names that RecBole's configuration reads (it then sets np.float and others by them)."""
    for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
        setattr(np, old, new)


def train(name: str, data: Path, threads: int, epochs: int) -> None:
    """Print the seconds of the epochs after the first, and the memory of it all, as JSON."""
    warnings.simplefilter("ignore")  # the peers use what today's pandas and torch advise against
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    histories = ml_1m.training_users(data)
    runs = {
        "recae": lambda: recae(histories, epochs + 1),
        "plain PyTorch": lambda: plain(histories),
        "RecPack": lambda: recpack(histories),
        "RecBole": lambda: recbole(histories),
    }
    with contextlib.redirect_stdout(sys.stderr):
        seconds = [second for second, _ in zip(runs[name](), range(epochs + 1), strict=False)]
    print(json.dumps({"seconds": seconds[1:], "bytes": measure.peak_resident()}))


def environment(folder: Path) -> Path:
    """Return the Python of an environment that has the peers, made in a folder where it is not there yet."""
    python, done = folder / "bin" / "python", folder / "peers.json"
    wanted = json.dumps([PEERS, IMPORTED])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {' and '.join(PEERS)} into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *IMPORTED], check=True)
        subprocess.run([*install, "--no-deps", *PEERS], check=True)
        done.write_text(wanted)
    return python


def main() -> None:
    """Time each in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ml_1m.add_argument(parser)
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "recae-peers")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        train(given.only, given.data, given.threads, given.epochs)
        return

    ml_1m.require(given.data)
    peers = environment(given.env)
    pythons = {"recae": sys.executable, "plain PyTorch": sys.executable, "RecPack": peers, "RecBole": peers}
    seconds: dict[str, list[float]] = {name: [] for name in pythons}
    memory = dict.fromkeys(pythons, 0)
    options = ["--data", given.data, "--threads", given.threads, "--epochs", given.epochs]
    for _ in range(given.rounds):
        for name, python in pythons.items():
            told = measure.in_child(
                Path(__file__),
                "--only",
                name,
                *map(str, options),
                environment={"OMP_NUM_THREADS": str(given.threads)},
                python=python,
            )
            seconds[name] += told["seconds"]
            memory[name] = max(memory[name], told["bytes"])

    middle = {name: measure.median(taken) for name, taken in seconds.items()}
    rows = [
        [name, f"{middle[name]:.2f}", f"{middle[name] / middle['recae']:.2f}", f"{memory[name] / 1e6:.0f}"]
        for name in pythons
    ]
    print(measure.machine("torch", "numpy", "scipy"))
    print(f"{given.threads} threads; the median of {given.rounds * given.epochs} epochs of each, {', '.join(PEERS)}\n")
    print(measure.table(["Mult-VAE 600-200, ML-1M strong", "seconds an epoch", "times recae's", "peak MB"], rows))


if __name__ == "__main__":
    main()
