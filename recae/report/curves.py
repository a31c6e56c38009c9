"""Training curves: what was measured at each epoch, and which epoch was best."""

import re
from dataclasses import dataclass

import pandas as pd

from recae.report.inputs import ReportInput, metric_label

METRIC_KEY = re.compile(r"(\w+)_at_(\d+)")


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
    """Return the first epoch with the highest value."""
    return int(watched.index[int(watched.to_numpy().argmax())])


def read_curves(report: ReportInput) -> list[Curve]:
    """Return the curve of each model that was trained in epochs, in the models' order."""
    tables = {model: _by_epoch(report.curves[model]) for model in report.models if model in report.curves}
    tables = {model: table for model, table in tables.items() if len(table)}
    watched = watched_metric(report, tables)
    return [
        Curve(
            model,
            table,
            *(table[key].dropna() if key in table else pd.Series(dtype=float) for key in (watched, "loss")),
        )
        for model, table in tables.items()
    ]


def watched_metric(report: ReportInput, tables: dict[str, pd.DataFrame]) -> str:
    """Return the column of the validation metric: the main one if it was measured, else the first metric there is."""
    columns = [str(column) for table in tables.values() for column in table]
    metrics = [column for column in columns if METRIC_KEY.fullmatch(column)]
    key = report.main_metric.key
    return key if key in metrics or not metrics else metrics[0]


def column_label(column: str) -> str:
    """Return a figure's name as people read it: ndcg_at_100 is ndcg@100, kl_weight is kl weight."""
    metric = METRIC_KEY.fullmatch(column)
    return metric_label(metric[1], int(metric[2])) if metric else column.replace("_", " ")


def _by_epoch(curve: pd.DataFrame) -> pd.DataFrame:
    numbers = pd.DataFrame({column: pd.to_numeric(curve[column], errors="coerce").astype(float) for column in curve})
    epochs = numbers.pop("epoch") if "epoch" in numbers else pd.Series(range(1, len(numbers) + 1))
    numbers.index = pd.Index(epochs.astype(int), name="epoch")
    return numbers
