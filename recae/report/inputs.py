"""What an experiment hands over to be reported."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recae.anomalies import Surprise
from recae.interactions import IdMap, Interactions
from recae.metrics import Metric
from recae.ranking import TopN
from recae.splitting import Fold


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

    @cached_property
    def main(self) -> pd.DataFrame:
        """The rows of `metrics` that hold the main metric, by model, best first (NaN last, ties as given).

        Best is highest, or lowest where the metric says so.
        """
        table = self.metrics
        rows = table[(table["metric"] == self.main_metric.name) & (table["k"] == self.main_metric.k)]
        everyone = pd.Index(table["model"].drop_duplicates(), name="model")
        return (
            rows.set_index("model")
            .reindex(everyone)
            .sort_values("value", ascending=self.main_metric.sign < 0, kind="stable")
        )

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
