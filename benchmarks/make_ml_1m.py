"""Make ml-1m-strong.zip, which the benchmarks read, of GroupLens' ml-1m.zip.

    python benchmarks/make_ml_1m.py ml-1m.zip [--data FOLDER]

The protocol is that of Liang et al. 2018: likes are ratings of 4 stars or more, users have five or more, 600 of them
are for validation and 600 for test, each with a fifth held out. Tables have a user and an item in each row.
"""

import argparse
import zipfile
from pathlib import Path

import ml_1m
import pandas as pd

from recae.events import read_events
from recae.files import whole_file
from recae.interactions import Interactions
from recae.preparation import Preparation
from recae.splitting import strong_generalisation


def make(archive: Path, path: Path, held_out_users: int = 600) -> None:
    """Write the zip."""
    likes = Interactions.from_events(read_events(archive), Preparation(min_value=4), min_items=5)
    split = strong_generalisation(likes, held_out_users=held_out_users)
    tables = {"items": pd.DataFrame({"item": split.train.items.ids}), "train": pairs(split.train)}
    for name, fold in {"validation": split.validation, "test": split.test}.items():
        tables |= {f"{name}_tr": pairs(fold.history), f"{name}_te": pairs(fold.held_out)}
    with whole_file(path, overwrite=True) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, inside in zip(ml_1m.TABLES, ml_1m.INSIDE, strict=True):
            zipped.writestr(inside, tables[name].to_csv(index=False))


def pairs(interactions: Interactions) -> pd.DataFrame:
    """Return user and item of each interaction, as ids."""
    matrix = interactions.matrix.tocoo()
    return pd.DataFrame({"user": interactions.users.to_ids(matrix.row), "item": interactions.items.to_ids(matrix.col)})


def main() -> None:
    """Make it where the benchmarks look for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="GroupLens' ml-1m.zip, as `recae data fetch ml-1m` gets it")
    ml_1m.add_argument(parser)
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    make(given.archive, given.data / ml_1m.ZIP)
    print(given.data / ml_1m.ZIP)


if __name__ == "__main__":
    main()
