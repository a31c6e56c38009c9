"""What an experiment hands over to be reported."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recae.anomalies import Surprise
from recae.interactions import IdMap, Interactions
from recae.metrics import Metric
from recae.ranking import TopN
from recae.splitting import Fold

BASELINE, VALUE_BASELINE = "popularity", "item-mean"
"""The least that is to be expected of a ranking, and of predicted values."""


@dataclass(frozen=True, eq=False)
class ReportInput:
    """An experiment's results, in the tables' usual columns; every part but `metrics` may be empty.

    metrics      model, metric, k, value, ci_low, ci_high, users
    comparisons  model, other, metric, k, difference, ci_low, ci_high, p_value, p_adjusted, significant
    per_user     model, user_id, and a column a metric; NaN for a user without held-out items
    curves       by model: epoch, and the figures measured at it (loss, ndcg_at_100, kl_weight, …)
    top          by model: ranked lists for the fold's users, in the fold's order
    user_embeddings  by model: the fold's users × dimension
    item_embeddings  by model: the training's `mapped_items` × dimension
    surprises    by model: how much the histories of the fold's `explained_users` surprise it
    predicted    by model: the predicted value of each held-out entry, in the order of their matrix
    chosen       by model: what its training chose, such as hyper-parameters that were left open, and figures of that
    `recipe` is YAML, `facts` and `caveats` are sentences and figures for people.
    """

    title: str
    recipe: str
    facts: Mapping[str, str]
    caveats: Sequence[str]
    metrics: pd.DataFrame
    main_metric: Metric
    comparisons: pd.DataFrame
    per_user: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    top: Mapping[str, TopN]
    train: Interactions
    fold: Fold
    user_embeddings: Mapping[str, NDArray[np.float32]]
    item_embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    surprises: Mapping[str, Surprise] = field(default_factory=dict)
    predicted: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def main(self) -> pd.DataFrame:
        """The rows of `metrics` that hold the main metric, by model, best first (NaN last, ties as given).

        Best is highest, or lowest where the metric says so.
        """
        return self._by(self.main_metric)

    def _by(self, metric: Metric) -> pd.DataFrame:
        table = self.metrics
        rows = table[(table["metric"] == metric.name) & (table["k"] == metric.k)]
        everyone = pd.Index(table["model"].drop_duplicates(), name="model")
        return rows.set_index("model").reindex(everyone).sort_values("value", ascending=metric.sign < 0, kind="stable")

    @cached_property
    def measured(self) -> list[Metric]:
        """The metrics, as they were asked for."""
        kinds = self.metrics[["metric", "k"]].drop_duplicates().itertuples(index=False, name=None)
        return [Metric(name, k) for name, k in kinds]

    @property
    def ranks(self) -> bool:
        """Does any metric look at rankings?"""
        return not all(metric.is_of_values for metric in self.measured)

    @property
    def baseline(self) -> str:
        """The model that is the least to be expected by the main metric."""
        return VALUE_BASELINE if self.main_metric.is_of_values else BASELINE

    @property
    def predictors(self) -> list[str]:
        """The models that predict values, best first by the main metric, or by the first that is of values."""
        metric = next((one for one in [self.main_metric, *self.measured] if one.is_of_values), self.main_metric)
        return [model for model in self._by(metric).index if model in self.predicted]

    @property
    def first_places(self) -> int:
        """How many places of a list are looked at: those of the main metric, or of the list, if it looks at none."""
        return self.main_metric.k or max((top.items.shape[1] for top in self.top.values()), default=0)

    @property
    def models(self) -> list[str]:
        """The models, best first on the main metric: the order in which they appear everywhere."""
        return list(self.main.index)

    @cached_property
    def user_values(self) -> pd.DataFrame:
        """The main metric, the fold's users (in order) × models; no column for a model that has none."""
        key = self.main_metric.key
        if key not in self.per_user:
            return pd.DataFrame(index=self.fold.history.users.ids)
        by_model = {
            str(model): rows.set_index("user_id")[key]
            for model, rows in self.per_user.groupby("model")
            if rows[key].notna().any()
        }
        users = self.fold.history.users.ids
        return pd.DataFrame(
            {model: by_model[model].reindex(users) for model in self.models if model in by_model},
            index=users,
            dtype=np.float64,
        )

    def told(self, value: float) -> str:
        """Return a value of the log, or one predicted, with three significant digits of the large held-out ones."""
        return f"{round(value, self._decimals) + 0.0:,.{self._decimals}f}".replace("-", "−")

    @cached_property
    def _decimals(self) -> int:
        values = np.abs(self.fold.held_out.matrix.data)
        large = float(np.quantile(values, 0.99)) if len(values) else 0.0
        return max(0, 2 - math.floor(math.log10(large))) if large > 0 else 2

    @property
    def item_labels(self) -> NDArray[np.object_]:
        """What to call each item: its title, or its id where it has none."""
        return labels_of(self.train.items, self.train.item_table)


def labels_of(items: IdMap, item_table: pd.DataFrame) -> NDArray[np.object_]:
    """Return what to call each item: its title, or its id where it has none."""
    labels = np.asarray(items.ids.astype(str), dtype=object)
    if "title" in item_table:
        titles = item_table["title"]
        named = titles.notna() & titles.astype(str).str.strip().ne("")
        labels = np.where(named.to_numpy(dtype=bool), titles.astype(str).to_numpy(dtype=object), labels)
    return labels


def metric_label(name: str, k: int = 0) -> str:
    """Return a metric as people read it: ndcg@100, truncated recall@20, coverage."""
    words = str(name).replace("_", " ")
    return f"{words}@{k}" if k else words


def shown(value: float) -> str:
    """Return a figure with about four significant digits, a dash for none."""
    if math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.{4 if size < 10 else 2 if size < 100 else 1}f}"
    return text.replace("-", "−")
