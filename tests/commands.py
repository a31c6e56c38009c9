"""The command line in this process, and a small log for it that has a taste to find."""

import io
import math
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from recae import console
from recae.cli import main

USERS, ITEMS = 60, 24

RECIPE = """
name: tiny
data: {path: log.csv, items: items.csv}
split: {kind: strong-generalisation, held_out_users: 12}
evaluation: {metrics: [ndcg@10, recall@5, coverage@5]}
models:
  popularity:
  ease: {l2: 5}
  mult-vae: {hidden: 8, latent: 4, epochs: 3, batch_size: 20, kl_anneal_steps: 20}
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(*words: object) -> Done:
    """Run a command in this process, as the installed script does."""
    out, err = io.StringIO(), io.StringIO()
    swift = patch.object(console, "PAUSE", math.inf)  # how long a test takes says nothing
    with swift, patch.object(sys, "argv", ["recae", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            return Done(int(end.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("a command ends with an exit code")


def start(*words: object, folder: Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    command = [sys.executable, "-c", "from recae.cli import main; main()", *map(str, words)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def log() -> pd.DataFrame:
    """Return events of users who like one item in four: user_id, item_id, value (1 to 5), timestamp."""
    rng = np.random.default_rng(7)
    taste = rng.integers(4, size=(USERS, 1))
    user, item = np.nonzero(rng.random((USERS, ITEMS)) < np.where(np.arange(ITEMS) % 4 == taste, 0.85, 0.1))
    return pd.DataFrame(
        {
            "user_id": [f"u{number:02}" for number in user],
            "item_id": [f"i{number:02}" for number in item],
            "value": rng.integers(1, 6, len(user)),
            "timestamp": rng.integers(1_000_000_000, 1_700_000_000, len(user)),
        }
    )


def write_inputs(folder: Path) -> Path:
    """Write the log, an item table and a recipe for both into a folder."""
    log().to_csv(folder / "log.csv", index=False)
    items = pd.DataFrame({"item_id": [f"i{number:02}" for number in range(ITEMS)]})
    items.assign(title=[f"Film {number}" for number in range(ITEMS)]).to_csv(folder / "items.csv", index=False)
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder in a folder, with its bytes: to see that nothing changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
