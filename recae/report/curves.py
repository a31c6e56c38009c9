"""Training curves: what was measured at each epoch, and which epoch was best."""

from dataclasses import dataclass

import pandas as pd

from recae.errors import RecipeError
from recae.metrics import Metric
from recae.report.inputs import ReportInput, metric_label


@dataclass(frozen=True, eq=False)
class Curve:
    """One model's training: `figures` by epoch; `watched` is the validation metric, empty where none was measured."""

    model: str
    figures: pd.DataFrame
    watched: pd.Series
    loss: pd.Series

    @property
    def best_epoch(self) -> int:
        """The epoch of the best validation metric, or the last one."""
        return int(self.figures.index[-1]) if self.watched.empty else best_epoch(self.watched)

    def at_best(self, column: str) -> float:
        """A figure at the best epoch, NaN where it was not measured."""
        return float(self.figures[column][self.best_epoch]) if column in self.figures else float("nan")


def best_epoch(watched: pd.Series) -> int:
    """Return the first epoch with the best value of a metric, by whose key the values go."""
    metric = metric_of(str(watched.name))
    return int(watched.index[int(((metric.sign if metric else 1) * watched.to_numpy()).argmax())])


def read_curves(report: ReportInput) -> list[Curve]:
    """Return the curve of each model that was trained in epochs, in the models' order."""
    tables = {model: _by_epoch(report.curves[model]) for model in report.models if model in report.curves}
    tables = {model: table for model, table in tables.items() if len(table)}
    return [
        Curve(
            model,
            table,
            *(
                table[key].dropna() if key in table else pd.Series(dtype=float)
                for key in (_watched(report, table), "loss")
            ),
        )
        for model, table in tables.items()
    ]


def metric_of(column: str) -> Metric | None:
    """Return the metric that a figure is of, by its key; None for one that is of no metric, such as a loss."""
    try:
        return Metric.from_key(column)
    except RecipeError:
        return None


def column_label(column: str) -> str:
    """Return a figure's name as people read it: ndcg_at_100 is ndcg@100, kl_weight is kl weight."""
    metric = metric_of(column)
    return metric_label(metric.name, metric.k) if metric else column.replace("_", " ")


def _watched(report: ReportInput, table: pd.DataFrame) -> str:
    """Return the column of the validation metric: the main one if it was measured, else the first metric there is."""
    columns = [str(column) for column in table]
    metrics = [column for column in columns if metric_of(column)]
    key = report.main_metric.key
    return key if key in metrics or not metrics else metrics[0]


def _by_epoch(curve: pd.DataFrame) -> pd.DataFrame:
    numbers = pd.DataFrame({column: pd.to_numeric(curve[column], errors="coerce").astype(float) for column in curve})
    epochs = numbers.pop("epoch") if "epoch" in numbers else pd.Series(range(1, len(numbers) + 1))
    numbers.index = pd.Index(epochs.astype(int), name="epoch")
    return numbers
