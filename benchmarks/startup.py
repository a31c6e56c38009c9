"""Start-up: how long a command takes before its work begins, next to Python alone.

    python benchmarks/startup.py [--repeats 11]

Commands and `python -c pass` take turns, each in a process of its own; the first turn only warms the disk's cache up.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

from measure import in_turn, machine, median, table

COMMANDS = ("--help", "train --help", "data list")


def run(*words: str) -> Callable[[], object]:
    """Return what starts Python with these words and waits for it."""
    return lambda: subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=11)
    repeats = arguments.parse_args().repeats
    commands = {f"recae {words}": ("-c", "from recae.cli import main; main()", *words.split()) for words in COMMANDS}
    work = {"python -c pass": ("-c", "pass"), "import torch": ("-c", "import torch"), **commands}
    seconds = in_turn({name: run(*words) for name, words in work.items()}, repeats)
    least = median(seconds["python -c pass"])
    print(machine("typer", "torch"), end="\n\n")
    rows = [[f"`{name}`", f"{median(taken):.3f}", f"{median(taken) - least:.3f}"] for name, taken in seconds.items()]
    print(table(["", f"seconds (median of {repeats})", "beyond Python's own"], rows))


if __name__ == "__main__":
    main()
