"""A training that a test can stop from outside: run as a script it tells each epoch and, on Ctrl-C, what it was told.

python long_training.py CHECKPOINT THREADS
"""

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix

from recae.errors import Interrupted
from recae.models.base import FitOptions
from recae.models.mult_vae import MultVAE
from recae.progress import Step
from recae.validation import Validation

EPOCHS = 60
INTERRUPTED = 7


def model() -> MultVAE:
    return MultVAE(hidden=16, latent=6, batch_size=20, epochs=EPOCHS, kl_anneal_steps=300, patience=EPOCHS)


def histories() -> csr_matrix:
    return _taste(users=200, seed=1)


def validation() -> Validation:
    liked = _taste(users=60, seed=2).tolil()
    held_out = csr_matrix(liked.shape, dtype=np.float32).tolil()
    for user, row in enumerate(liked.rows):
        for item in row[::4]:
            liked[user, item], held_out[user, item] = 0, 1
    return Validation(csr_matrix(liked), csr_matrix(held_out))


def _taste(users: int, seed: int) -> csr_matrix:
    rng = np.random.default_rng(seed)
    chance = np.where(np.arange(50) % 5 == rng.integers(0, 5, size=(users, 1)), 0.7, 0.05)
    return csr_matrix((rng.random(chance.shape) < chance).astype(np.float32))


def _tell(step: Step) -> None:
    sys.stdout.write(f"{step.done}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    options = FitOptions(seed=5, validation=validation(), checkpoint=Path(sys.argv[1]), listener=_tell)
    try:
        model().fit(histories(), options)
    except Interrupted as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(INTERRUPTED)
