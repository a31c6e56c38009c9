"""What a search for better settings tried, as its page shows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recae.metrics import Metric
from recae.ranges import Range
from recae.report.drawing import Style

STATES = {"complete": "complete", "pruned": "given up", "failed": "failed"}
"""What became of a trial, as the table says it and as people do."""

STYLES = {
    "complete": Style("series-0", "", "o"),
    "given up": Style("series-1", "", "^"),
    "failed": Style("muted", "", "X"),
}
BEST = Style("ink", "", "D")

WORST = 5
"""How far below the best a figure is drawn, in distances of the median to it: what lies below stands at the edge."""


@dataclass(frozen=True, eq=False)
class SearchInput:
    """What a search found.

    recipe  YAML, resolved
    ranges  by model and setting, of those that were searched
    trials  as in trials.parquet: model, trial, state, metric, value, best_epoch, seconds, settings, reason, curve
    best    by model: the number of its best trial, for those that have one
    """

    title: str
    recipe: str
    ranges: Mapping[str, Mapping[str, Range]]
    facts: Mapping[str, str]
    caveats: Sequence[str]
    trials: pd.DataFrame
    best: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Tried:
    """What was tried of one model, by trial: states as people say them, figures (NaN for none) and settings.

    `ranges` are those of the settings, as far as they are known; `edge` is the worst value that is drawn where it is,
    None where all are.
    """

    model: str
    metric: Metric
    states: tuple[str, ...]
    figures: NDArray[np.float64]
    settings: pd.DataFrame
    ranges: Mapping[str, Range]
    curves: tuple[NDArray[np.float64], ...]
    seconds: float
    best: int | None
    reasons: Mapping[int, str]

    @property
    def edge(self) -> float | None:
        """The worst value that is drawn where it is, or None where all are."""
        values = self.metric.sign * self.figures[np.isfinite(self.figures)]
        if not len(values):
            return None
        least = values.max() - WORST * (values.max() - np.median(values))
        return None if values.min() >= least or least == values.max() else float(self.metric.sign * least)

    @property
    def beyond(self) -> int:
        """How many have a worse value than that of the edge."""
        edge = self.edge
        return 0 if edge is None else int((self.metric.sign * self.figures < self.metric.sign * edge).sum())

    @property
    def so_far(self) -> NDArray[np.float64]:
        """The best value of the complete trials up to each, NaN before the first."""
        complete = np.array([state == "complete" for state in self.states])
        worst = -np.inf
        best = np.maximum.accumulate(
            np.where(complete & np.isfinite(self.figures), self.metric.sign * self.figures, worst)
        )
        return np.where(np.isfinite(best), self.metric.sign * best, np.nan)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials ended how, of those there are."""
        return {state: self.states.count(state) for state in STATES.values() if state in self.states}

    @property
    def own(self) -> float:
        """The value of the recipe's own settings, NaN where they have none."""
        return float(self.figures[0])

    @property
    def best_value(self) -> float:
        """The best value, NaN where there is none."""
        return float("nan") if self.best is None else float(self.figures[self.best])

    @property
    def gain(self) -> float:
        """How much better the best settings are than the recipe's own."""
        return self.metric.sign * (self.best_value - self.own)


def read_trials(search: SearchInput) -> list[Tried]:
    """Return what was tried of each model, in the table's order."""
    found = []
    for model, rows in search.trials.groupby("model", sort=False):
        curves = [np.asarray(curve, dtype=np.float64) for curve in rows["curve"]]
        found.append(
            Tried(
                model=str(model),
                metric=Metric.parse(str(rows["metric"].iloc[0])),
                states=tuple(STATES[state] for state in rows["state"]),
                figures=rows["value"].to_numpy(dtype=np.float64, na_value=np.nan),
                settings=pd.DataFrame([json.loads(settings) for settings in rows["settings"]], dtype=object),
                ranges=search.ranges.get(str(model), {}),
                curves=tuple(curves),
                seconds=float(rows["seconds"].sum()),
                best=search.best.get(str(model)),
                reasons={number: reason for number, reason in enumerate(rows["reason"]) if reason},
            )
        )
    return found


def said(setting: Any) -> str:
    """Return a setting as people read it."""
    if isinstance(setting, list):
        return " × ".join(map(said, setting)) or "none"
    return f"{setting:g}" if isinstance(setting, float) else str(setting)
