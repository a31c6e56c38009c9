"""The page of an experiment: everything that it found, filled into one template."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from recae.metrics import CATALOGUE, PER_USER, VALUES
from recae.report import plots
from recae.report.curves import Curve, column_label, read_curves
from recae.report.drawing import MARKS, Style
from recae.report.inputs import ReportInput, metric_label
from recae.report.maps import OTHER_GENRES, PointMap, item_map, user_map
from recae.report.measures import gain_by_bin, length_bins, recall_by_k, share_by_popularity
from recae.report.oddities import find_oddities
from recae.report.page import Picture, render, write_page
from recae.report.people import portray
from recae.report.results import BASELINE, catalogue_table, quality_table, summarise, value_table

CONTENTS = {
    "results": "Results",
    "training": "Training",
    "behaviour": "Behaviour",
    "embedding": "Embedding",
    "people": "Real users",
    "odd": "Odd users",
    "making": "How it was made",
}
GAIN_MODELS = 5
OTHERS = Style("muted", "", "o")
CONSUMED = Style("ink", "", "o")
ODD = Style("ink", "", "D")


def write_report(path: Path, report: ReportInput, *, overwrite: bool = False) -> None:
    """Write a report as one HTML file that needs nothing else; raises OutputError if `path` exists."""
    write_page(path, render_report(report), overwrite=overwrite)


def render_report(report: ReportInput) -> str:
    """Return the report as HTML; the same input gives the same text."""
    styles = {model: Style.of(number) for number, model in enumerate(report.models)}
    curves = read_curves(report)
    return render(
        "report.html",
        title=f"{report.title}: recae report",
        eyebrow="one model" if len(styles) == 1 else f"{len(styles)} models compared",
        heading=report.title,
        contents=CONTENTS,
        report=report,
        styles=styles,
        metric=metric_label(report.main_metric.name, report.main_metric.k),
        summary=summarise(report),
        qualities=[table for table in (quality_table(report), value_table(report)) if table.heads],
        catalogue=catalogue_table(report),
        curves=curves,
        column_label=column_label,
        figures=list(dict.fromkeys(column for curve in curves for column in curve.figures)),
        learning=_learning(curves, styles),
        loss=_loss(curves, styles),
        recall=_recall(report, styles),
        gain=_gain(report, styles),
        popularity=_popularity(report, styles),
        user_map=_map(report, "users", report.user_embeddings, lambda vectors: user_map(vectors, report.fold.history)),
        item_map=_map(
            report,
            "items",
            report.item_embeddings,
            lambda vectors: item_map(vectors, report.train, report.item_labels),
        ),
        people=portray(report),
        odd=_odd(report, styles),
        meanings=_meanings(report),
    )


def _legend(models: Iterable[str], styles: Mapping[str, Style]) -> list[tuple[str, Style]]:
    return [(model, styles[model]) for model in models]


def _learning(curves: Sequence[Curve], styles: Mapping[str, Style]) -> Picture | None:
    measured = {curve.model: curve.watched for curve in curves if len(curve.watched)}
    if not measured:
        return None
    # Models may be judged by different metrics: those of the best of them, which have one axis.
    watched = next(iter(measured.values())).name
    lines = {model: values for model, values in measured.items() if values.name == watched}
    return Picture(
        plots.learning_picture(lines, styles), _legend(lines, styles), {"metric": column_label(str(watched))}
    )


def _loss(curves: Sequence[Curve], styles: Mapping[str, Style]) -> Picture | None:
    lines = {curve.model: curve.loss for curve in curves if len(curve.loss)}
    return Picture(plots.loss_picture(lines, styles), _legend(lines, styles)) if lines else None


def _recall(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    held_out = report.fold.held_out.matrix
    if not held_out.nnz:
        return None
    bands = {model: recall_by_k(report.top[model], held_out) for model in report.models if model in report.top}
    if not bands:
        return None
    return Picture(
        plots.recall_picture(bands, styles), _legend(bands, styles), {"all_banded": len(bands) <= plots.BANDS}
    )


def _gain(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    """Picture the best models' gains over popularity, or over the weakest model where there is no popularity."""
    values = report.user_values.dropna(how="all")
    if len(values.columns) < 2 or values.empty:
        return None
    baseline = BASELINE if BASELINE in values else values.columns[-1]
    aimed = report.user_values.notna().any(axis=1).to_numpy()
    group, bins = length_bins(np.diff(report.fold.history.matrix.indptr)[aimed])
    models = [model for model in values.columns if model != baseline][:GAIN_MODELS]
    sign = report.main_metric.sign
    bands = {
        model: gain_by_bin(sign * (values[model] - values[baseline]).to_numpy(), group, len(bins)) for model in models
    }
    facts = {"baseline": baseline, "left_out": len(values.columns) - 1 - len(models), "bins": len(bins)}
    return Picture(plots.gain_picture(bands, bins, styles), _legend(bands, styles), facts)


def _popularity(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    """Picture whose popularity the models recommend, against what the same users went on to consume."""
    popularity = np.diff(report.train.matrix.tocsc().indptr)
    consumed = report.fold.held_out.matrix.indices
    if not len(consumed):
        return None
    lines = {}
    for model in report.models:
        if model in report.top:
            first = report.top[model].items[:, : report.first_places]
            lines[model] = share_by_popularity(popularity, first[first >= 0])
    if not lines:
        return None
    line = share_by_popularity(popularity, consumed)
    legend = [("held out: what they took", CONSUMED), *_legend(lines, styles)]
    return Picture(plots.popularity_picture(lines, line, styles), legend)


def _map(
    report: ReportInput,
    things: str,
    embeddings: Mapping[str, NDArray[np.float32]],
    lay_out: Callable[[NDArray[np.float32]], PointMap | None],
) -> Picture | None:
    """Picture users or items in the embedding of the best model that has one which can be drawn."""
    for model in report.models:
        found = lay_out(embeddings[model]) if model in embeddings else None
        if found is not None:
            styles = _map_styles(found)
            facts = {"model": model, "map": found, "dimension": embeddings[model].shape[1]}
            picture = plots.map_picture(found, styles, things)
            return Picture(picture, list(zip(found.groups, styles, strict=True)), facts)
    return None


def _map_styles(found: PointMap) -> list[Style]:
    if found.ordered:
        return [Style(f"step-{number}", "", MARKS[number]) for number in range(len(found.groups))]
    styles = [Style.of(number) for number in range(len(found.groups))]
    return [*styles[:-1], OTHERS] if found.groups[-1] == OTHER_GENRES else styles


def _odd(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    """Picture how much users surprise the best model that can say so, by the length of their history."""
    found = find_oddities(report)
    if found is None:
        return None
    legend = [("a user", replace(styles[found.model], mark="o")), ("named in the table", ODD)]
    return Picture(plots.oddity_picture(found, styles[found.model], ODD), legend, {"found": found})


def _meanings(report: ReportInput) -> list[tuple[str, Markup]]:
    """Return each metric of the tables with its formula, as its function's docstring gives it."""
    functions: Mapping[str, Any] = {**PER_USER, **VALUES, **CATALOGUE}
    names = dict.fromkeys(str(name) for name in report.metrics["metric"])
    docs = {name: inspect.getdoc(functions[name]) or "" for name in names}
    return [
        (metric_label(name), _typeset(doc.split("\n\n")[0].replace("\n", " "))) for name, doc in docs.items() if doc
    ]


def _typeset(formula: str) -> Markup:
    """Lower what stands below a letter: hit_r, Σ_{r≤k}."""
    return Markup(re.sub(r"_(?:\{([^}]*)\}|(\w)\b)", r"<sub>\1\2</sub>", str(escape(formula))))
