"""What a search tries next, and which training is not worth its end: the only module that imports optuna.

Between two trials nothing is kept but the trials: each is proposed from those before it, by a seed of its own. So a
search that was stopped goes on as if it never had been, and no storage, lock or pickle is needed for that.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field

from recae.ranges import Choices, Range
from recae.reading import Section

WARM_UP = 0.5
"""No training is given up in its first epochs: so great a part of what the finished ones took (their median).

Early on the figures tell how fast settings learn, not how far they come.
"""

DRAWS = 1000
"""How often settings are drawn at random for some that were not tried, before the ranges are said to have none."""


State = Literal["complete", "pruned", "failed"]


class Trial(Section):
    """Settings that were tried, what became of them, and the figure that is searched by, best and of each epoch.

    `value` is None where there is none, `best_epoch` where a model has no epochs that were measured; `reason` says in
    one line why a trial failed.
    """

    number: int
    state: State
    settings: dict[str, Any]
    value: float | None = None
    best_epoch: int | None = None
    seconds: float
    curve: list[float] = Field(default=[])
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Settings to try; those of the recipe where there are none."""

    settings: Mapping[str, Any]
    live: optuna.Trial

    def is_hopeless(self, epoch: int, value: float) -> bool:
        """Return whether a training that reached a value in an epoch, counted from 1, is not worth its end.

        It is one whose best epoch so far is worse than the median of what the finished trials had reached in this one,
        after the warm-up.
        """
        with _quiet():
            self.live.report(value, epoch)
            return self.live.should_prune()


def propose(ranges: Mapping[str, Range], trials: Sequence[Trial], seed: int, sign: int = 1) -> Proposal | None:
    """Return what to try after these trials, or None where the ranges have no settings left that were not tried.

    `sign` is 1 where the largest value is the best, -1 where the least is. The first trial is the recipe as it is.
    Optuna's samplers learn from the trials whose settings lie in the ranges; one that failed counts as the worst of
    all. Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization (TPE); Golovin et al. 2017, Google Vizier
    (the median rule), section 3.2.2.
    """
    number = len(trials)
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with _quiet():
        study = optuna.create_study(
            direction="maximize" if sign > 0 else "minimize",
            sampler=optuna.samplers.TPESampler(seed=own),
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=1 + warm_up(trials)),
        )
        spaces = {key: _space(one) for key, one in ranges.items()}
        study.add_trials([_told(trial, ranges, spaces) for trial in trials if _is_within(trial, ranges)])
        if number == 0:
            return Proposal({}, study.ask())
        live = study.ask(spaces)
        settings = _settings(live, ranges)
        tried = [trial.settings for trial in trials]
        if settings in tried:
            chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=own))
            drawn = (_settings(chance.ask(spaces), ranges) for _ in range(DRAWS))
            new = next((others for others in drawn if others not in tried), None)
            if new is None:
                return None
            settings = new
    return Proposal(settings, live)


def warm_up(trials: Sequence[Trial]) -> int:
    """Return in how many epochs the next training is not given up."""
    epochs = [len(trial.curve) for trial in trials if trial.state == "complete"]
    return math.ceil(WARM_UP * float(np.median(epochs))) if epochs else 0


def _space(one: Range) -> BaseDistribution:
    if isinstance(one, Choices):
        return CategoricalDistribution(range(len(one.values)))  # their places: optuna keeps no lists
    if isinstance(one.low, int) and isinstance(one.high, int):
        return IntDistribution(one.low, one.high, log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def _settings(live: optuna.Trial, ranges: Mapping[str, Range]) -> dict[str, Any]:
    return {
        key: one.values[live.params[key]] if isinstance(one, Choices) else one.rounded(live.params[key])
        for key, one in ranges.items()
    }


def _is_within(trial: Trial, ranges: Mapping[str, Range]) -> bool:
    return all(one.holds(trial.settings[key]) for key, one in ranges.items())


def _told(
    trial: Trial, ranges: Mapping[str, Range], spaces: Mapping[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    """Return a trial as optuna knows trials."""
    complete = trial.state == "complete"
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
        value=trial.value if complete else None,
        params={
            key: one.values.index(trial.settings[key]) if isinstance(one, Choices) else trial.settings[key]
            for key, one in ranges.items()
        },
        distributions=dict(spaces),
        intermediate_values={} if trial.state == "failed" else dict(enumerate(trial.curve, 1)),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what optuna logs and warns of while it works for us."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
