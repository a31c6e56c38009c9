"""The experiment's result: a summary in words, and the tables of figures."""

from dataclasses import dataclass

import pandas as pd

from recae.comparison import better_than
from recae.metrics import Metric
from recae.report.inputs import ReportInput, metric_label, shown

NAN = float("nan")


@dataclass(frozen=True)
class Gap:
    """How far the best model is ahead of another; `significant` is None where no paired test was made."""

    other: str
    difference: float
    share: float
    ci_low: float = NAN
    ci_high: float = NAN
    p_value: float = NAN
    significant: bool | None = None


@dataclass(frozen=True)
class Summary:
    """The main result: the best model, and its lead over the second and over the baseline, where those exist.

    `lower_is_better` says that the value is of an error.
    """

    best: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    users: int
    second: Gap | None
    baseline: Gap | None
    lower_is_better: bool = False


@dataclass(frozen=True)
class Cell:
    """One figure of a table."""

    value: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Span:
    """An interval and the value in it, in percent of the width they are drawn on."""

    low: float
    high: float
    at: float

    @property
    def width(self) -> float:
        """From end to end."""
        return round(self.high - self.low, 2)


@dataclass(frozen=True)
class Row:
    """One model's figures."""

    model: str
    cells: tuple[Cell, ...]
    span: Span | None
    better_than: str


@dataclass(frozen=True)
class ResultTable:
    """Models × metrics; `tested` says whether any paired test stands behind `better_than`."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    tested: bool = False


def summarise(report: ReportInput) -> Summary:
    """Say which model is best on the main metric, and by how much."""
    best = report.main.iloc[0]
    rivals = [model for model in report.models[1:] if pd.notna(report.main["value"][model])]
    second = _gap(report, rivals[0]) if rivals else None
    return Summary(
        best=report.models[0],
        metric=metric_label(report.main_metric.name, report.main_metric.k),
        value=float(best["value"]),
        ci_low=float(best["ci_low"]),
        ci_high=float(best["ci_high"]),
        users=0 if pd.isna(best["users"]) else int(best["users"]),
        second=second,
        baseline=_gap(report, report.baseline) if report.baseline in rivals[1:] else None,
        lower_is_better=report.main_metric.sign < 0,
    )


def quality_table(report: ReportInput) -> ResultTable:
    """Return the metrics of rankings that are measured user by user, the main one first."""
    caption = "Ranking quality, higher is better"
    return _with_main(report, caption, [one for one in report.measured if one.is_per_user and not one.is_of_values])


def value_table(report: ReportInput) -> ResultTable:
    """Return the metrics of predicted values, the main one first."""
    caption = "Errors of predicted values, lower is better"
    return _with_main(report, caption, [one for one in report.measured if one.is_of_values])


def catalogue_table(report: ReportInput) -> ResultTable:
    """Return the metrics of the lists as a whole (coverage, novelty, …), where the best figure alone says little."""
    wanted = [metric for metric in report.measured if not metric.is_per_user and not metric.is_of_values]
    caption = "The lists as a whole, where the best figure alone says little: random lists cover most"
    return _table(report, caption, wanted, mark_best=False, spans={}, better={})


def _with_main(report: ReportInput, caption: str, wanted: list[Metric]) -> ResultTable:
    """Return a table of metrics with what is known of the main one, if it is among them."""
    if report.main_metric not in wanted:
        return _table(report, caption, wanted, mark_best=True, spans={}, better={})
    main_first = sorted(wanted, key=lambda metric: metric != report.main_metric)
    better = better_than(_tests(report))
    return _table(report, caption, main_first, mark_best=True, spans=_spans(report.main), better=better)


def _table(
    report: ReportInput,
    caption: str,
    wanted: list[Metric],
    *,
    mark_best: bool,
    spans: dict[str, Span],
    better: dict[str, list[str]],
) -> ResultTable:
    columns = []
    for metric in wanted:
        table = report.metrics
        of_metric = (table["metric"] == metric.name) & (table["k"] == metric.k)
        rows = table[of_metric].set_index("model").reindex(report.models)
        best = metric.sign * (metric.sign * rows["value"]).max()
        columns.append([_cell(row, best=mark_best and row["value"] == best) for _, row in rows.iterrows()])
    return ResultTable(
        caption=caption,
        heads=tuple(metric_label(metric.name, metric.k) for metric in wanted),
        rows=tuple(
            Row(
                model=model,
                cells=tuple(column[place] for column in columns),
                span=spans.get(model),
                better_than=_in_words(
                    [other for other in report.models if other in better.get(model, [])], report.models
                ),
            )
            for place, model in enumerate(report.models)
        ),
        tested=bool(better),
    )


def _cell(row: pd.Series, *, best: bool) -> Cell:
    bounded = pd.notna(row["ci_low"]) and pd.notna(row["ci_high"])
    interval = f"{shown(row['ci_low'])}–{shown(row['ci_high'])}" if bounded else ""
    return Cell(shown(row["value"]), interval, best)


def _spans(main: pd.DataFrame) -> dict[str, Span]:
    low, high = main["ci_low"].fillna(main["value"]), main["ci_high"].fillna(main["value"])
    start, width = low.min(), high.max() - low.min()
    if pd.isna(width) or width <= 0:
        return {}
    return {
        str(model): Span(*(round(100 * float((edge[model] - start) / width), 2) for edge in (low, high, main["value"])))
        for model in main.index[main["value"].notna()]
    }


def _tests(report: ReportInput) -> pd.DataFrame:
    """Return the paired tests on the main metric."""
    table = report.comparisons
    if table.empty:
        return pd.DataFrame(columns=["model", "other", "metric", "k", "difference", "significant"])
    return table[(table["metric"] == report.main_metric.name) & (table["k"] == report.main_metric.k)]


def _gap(report: ReportInput, other: str) -> Gap:
    """Return the best model's lead over another."""
    best, value, sign = report.models[0], report.main["value"], report.main_metric.sign
    difference = sign * float(value.iloc[0] - value[other])
    share = difference / float(value[other]) if value[other] > 0 else NAN
    tests, pair = _tests(report), [best, other]
    found = tests[tests["model"].isin(pair) & tests["other"].isin(pair)]
    if found.empty:
        return Gap(other, difference, share)
    test = found.iloc[0]
    bounds = [float(test["ci_low"]), float(test["ci_high"])]
    low, high = bounds if (test["model"] == best) == (sign > 0) else (-bounds[1], -bounds[0])
    return Gap(other, difference, share, low, high, float(test["p_adjusted"]), bool(test["significant"]))


def _in_words(beaten: list[str], models: list[str]) -> str:
    """Name the beaten models; a long run of them down to the last one by its first."""
    if not beaten:
        return "–"
    if 1 < len(beaten) == len(models) - 1:
        return "all others"
    if len(beaten) > 3 and beaten == models[-len(beaten) :]:
        return f"{beaten[0]} and all below"
    return ", ".join(beaten)
