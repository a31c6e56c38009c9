"""How to go on with a command that stopped: said with the reason, as a command that can be copied."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recae.errors import DiskFull, InputError, Interrupted


@contextmanager
def resumable(out: Path, kept: Path, begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Tell whoever stops a command how to go on with it: from what is kept beside its output, or else anew.

    `begun` says whether the work has come so far that what the user can mend leaves something to go on from.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(f"{str(error) or 'stopped'}; {_how_to_go_on(out, kept)}") from None
    except DiskFull as error:
        if kept.exists():
            raise DiskFull(f"{error}; {_how_to_go_on(out, kept)}") from None
        raise
    except InputError as error:
        if begun() and kept.exists():
            advice = f"what is finished is kept, for the same recipe and log; {_how_to_go_on(out, kept)}"
            raise type(error)(f"{error}; {advice}") from None
        raise


def _how_to_go_on(out: Path, kept: Path) -> str:
    words = [word for word in sys.argv[1:] if word != "--resume"]
    if not any(word.split("=")[0] == "--out" for word in words):
        words += ["--out", str(out)]
    words += ["--resume"] if kept.exists() else []
    how = "to go on" if kept.exists() else "to start again"
    return f"{how}: recae {shlex.join(words)}"
