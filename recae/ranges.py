"""What a search may set a hyper-parameter to: a range of numbers or a list of choices, as a recipe writes them.

learning_rate: {low: 3e-4, high: 5e-3, log: true}
dropout: {low: 0.2, high: 0.8}
latent: [100, 200, 400]
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from recae.errors import RecipeError, nearest
from recae.reading import short

WANTED = "write {low: …, high: …}, with log: true for magnitudes, or a list of choices"
KEYS = ("low", "high", "log", "choices")

DIGITS = 4
"""Of a number that a search draws: no quality hangs on more, and people will copy it."""


@dataclass(frozen=True)
class Span:
    """The numbers from `low` to `high`: whole ones where these are; with `log`, magnitudes are alike."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of these."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    def rounded(self, value: Any) -> Any:
        """Return the number to use for one that was drawn: of few digits."""
        return value if isinstance(value, int) else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def plain(self) -> dict[str, Any]:
        """Return it as a recipe writes it."""
        return asdict(self)


@dataclass(frozen=True)
class Choices:
    """These values and no others."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of these."""
        return value in self.values

    def plain(self) -> list[Any]:
        """Return them as a recipe writes them."""
        return list(self.values)


Range = Span | Choices


def read_range(key: str, raw: Any, made: Callable[[Any], Any]) -> Range:
    """Read what a recipe has at `key`; RecipeError where it is no range.

    `made` returns what the model makes of a value of the hyper-parameter, and raises ModelError for one it refuses: a
    number's both ends are tried, and all choices.
    """
    if isinstance(raw, list):
        raw = {"choices": raw}
    if not isinstance(raw, dict):
        raise RecipeError(f"{key} = {short(repr(raw))}: {WANTED}")
    for name in raw:
        if name not in KEYS:
            raise RecipeError(f"unknown key '{key}.{name}'{nearest(str(name), KEYS)}")
    if "choices" in raw:
        return _read_choices(key, raw, made)
    for name in ("low", "high"):
        if name not in raw:
            raise RecipeError(f"'{key}.{name}' is missing; {WANTED}")
        if isinstance(raw[name], bool) or not isinstance(raw[name], int | float):
            raise RecipeError(f"{key}.{name} = {short(repr(raw[name]))}: a number is wanted; or a list of choices")
    low, high, log = made(raw["low"]), made(raw["high"]), raw.get("log", False)
    if isinstance(low, bool) or not isinstance(low, int | float):
        raise RecipeError(f"{key} is no number that could have a range; write a list of choices")
    if not low < high:
        raise RecipeError(f"{key}: low = {low:g} is not below high = {high:g}")
    if not isinstance(log, bool):
        raise RecipeError(f"{key}.log = {short(repr(log))}: true or false is wanted")
    if log and low <= 0:
        raise RecipeError(f"{key}: low = {low:g} has no logarithm; raise it above 0, or leave out log")
    return Span(low, high, log)


def _read_choices(key: str, raw: dict[str, Any], made: Callable[[Any], Any]) -> Choices:
    choices, *others = raw["choices"], *(name for name in raw if name != "choices")
    if others:
        raise RecipeError(f"{key} has choices, which need no {others[0]}: leave one of the two out")
    if not isinstance(choices, list) or not choices:
        raise RecipeError(f"{key} = {short(repr(choices))}: a list of choices is wanted")
    values = [plain(made(choice)) for choice in choices]
    for place, value in enumerate(values):
        if value in values[:place]:
            raise RecipeError(f"{key}: {'null' if value is None else value} is there twice")
    return Choices(tuple(values))


def plain(value: Any) -> Any:
    """Return a hyper-parameter's value as YAML and JSON have it: a list for a tuple."""
    return list(value) if isinstance(value, tuple) else value
