"""Every error recae raises on purpose.

    RecaeError
    ├── InputError            the user's input or usage is wrong: one clear line, exit code 2
    │   ├── EventsError           a log that cannot be read, or rows that may not stay
    │   ├── DataSetError          a public data set that is unknown, or could not be fetched
    │   ├── SplitError            a split that these interactions do not allow
    │   ├── RecipeError           a recipe, a key or an override that makes no sense
    │   ├── ModelError            an unknown model, a hyper-parameter of the wrong type or range, or one too large
    │   ├── CannotFoldIn          a model was asked about users it was not trained on, and cannot answer
    │   ├── CannotEmbed           a model was asked for an embedding it does not have
    │   ├── CannotPredict         a model was asked for values, and tells only what comes before what
    │   ├── CannotGenerate        a model was asked to make up users, and does not know how they are spread
    │   ├── CannotExplain         a model was asked how likely a history is, and has no likelihood, or none of new ones
    │   ├── ArtifactError         a model directory that is missing, damaged, or from a newer recae
    │   ├── DeviceError           a device that this machine does not have, or whose memory will not do
    │   └── OutputError           an output that exists already, or cannot be written
    │       └── DiskFull              … because there is no space left
    ├── Diverged              training produced values that are not finite
    └── Interrupted           a command was stopped on request; it says how to go on

    MemoryRanShort            a warning: memory ran out, and the work goes on in smaller pieces
    NotRecorded               a warning: a training step could not be recorded on CUDA, and goes on without

A message says what is wrong, where (file, row, key), and what to do, in one line.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RecaeError(Exception):
    """The root of every error that recae raises on purpose."""


class MemoryRanShort(UserWarning):
    """Memory ran out, and the work goes on in smaller pieces, with the same result."""


class NotRecorded(UserWarning):
    """A training step could not be recorded on CUDA: the work goes on slower, with the same result."""


class InputError(RecaeError):
    """The user's input or usage is wrong; the message is one line and says what to do."""


class EventsError(InputError):
    """A log of events cannot be read as it is."""


class DataSetError(InputError):
    """A public data set is unknown, or could not be fetched."""


class SplitError(InputError):
    """The interactions do not allow the split that was asked for."""


class RecipeError(InputError):
    """A recipe or an override makes no sense."""


class ModelError(InputError):
    """A model is unknown, or one of its hyper-parameters has the wrong type or range."""


class CannotFoldIn(InputError):
    """The model was asked to score histories it was not trained on, and has no way to do so."""


class CannotEmbed(InputError):
    """The model has no embedding of the kind that was asked for."""


class CannotPredict(InputError):
    """The model orders items, and has no values to predict."""


class CannotGenerate(InputError):
    """The model has no distribution that users could be drawn from."""


class CannotExplain(InputError):
    """The model has no likelihood, or cannot be shown a part of a history."""


class ArtifactError(InputError):
    """A model directory is missing, damaged, or written by a newer recae."""


class DeviceError(InputError):
    """The device that was asked for is not there."""


class OutputError(InputError):
    """An output exists already, or cannot be written."""


class DiskFull(OutputError):
    """An output cannot be written, because no space is left."""


class Diverged(RecaeError):
    """Training produced values that are not finite."""


class Interrupted(RecaeError):
    """The work was stopped on request; the message says how to go on with it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return «; did you mean 'x'?» for the known word nearest to an unknown one, else all that is known."""
    known = list(known)
    close = get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"
