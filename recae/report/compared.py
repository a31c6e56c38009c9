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

from recae.metrics import CATALOGUE, PER_USER, POOLED, VALUES
from recae.report import plots
from recae.report.calibration import FEW, find_calibration
from recae.report.curves import Curve, column_label, metric_of, read_curves
from recae.report.drawing import MARKS, SERIES, Style
from recae.report.inputs import ReportInput, metric_label
from recae.report.maps import OTHER_GENRES, PointMap, genres_of, item_map, user_map, with_genres
from recae.report.measures import gain_by_bin, length_bins, recall_by_k, share_by_popularity
from recae.report.oddities import find_oddities
from recae.report.page import Picture, render, write_page
from recae.report.people import LISTED, portray
from recae.report.results import catalogue_table, quality_table, summarise, value_table
from recae.report.trials import said

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

BANDS = 3
"""How many lines may each have a shaded band; of more, the best alone has one."""

OTHERS = Style("muted", "", "o")
CONSUMED = Style("ink", "", "o")
ODD = Style("ink", "", "D")
ACTUAL = Style("ink", "", "s")


def write_report(path: Path, report: ReportInput, *, overwrite: bool = False) -> None:
    """Write a report as one HTML file that needs nothing else; raises OutputError if `path` exists."""
    write_page(path, render_report(report), overwrite=overwrite)


def render_report(report: ReportInput) -> str:
    """Return the report as HTML; the same input gives the same text."""
    styles = {model: Style.of(number) for number, model in enumerate(report.models)}
    curves = read_curves(report)
    tables = [table(report) for table in (quality_table, value_table)]
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
        told=report.told,
        of_values=any(metric.is_of_values for metric in report.measured),
        pooled=any(metric.name in POOLED for metric in report.measured),
        qualities=[table for table in (tables[::-1] if report.main_metric.is_of_values else tables) if table.heads],
        catalogue=catalogue_table(report),
        curves=curves,
        column_label=column_label,
        figures=list(dict.fromkeys(column for curve in curves for column in curve.figures)),
        learning=_learning(curves, styles),
        loss=_loss(curves, styles),
        chosen={model: report.chosen[model] for model in report.models if report.chosen.get(model)},
        said=said,
        calibration=_calibration(report, styles),
        recall=_recall(report, styles),
        gain=_gain(report, styles),
        popularity=_popularity(report, styles),
        maps=_maps(report),
        people=portray(report),
        listed=LISTED,
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
    metric = metric_of(str(watched))
    facts = {"metric": column_label(str(watched)), "lower_is_better": metric is not None and metric.sign < 0}
    return Picture(plots.learning_picture(lines, styles), _legend(lines, styles), facts)


def _loss(curves: Sequence[Curve], styles: Mapping[str, Style]) -> Picture | None:
    lines = {curve.model: curve.loss for curve in curves if len(curve.loss)}
    return Picture(plots.loss_picture(lines, styles), _legend(lines, styles)) if lines else None


def _calibration(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    """Picture what the best model predicts, and the baseline beside it, against what was held out."""
    found = find_calibration(report)
    if found is None:
        return None
    drawn = [one.model for one in found.models]
    legend = [*_legend(drawn, styles), ("actual values", ACTUAL)]
    return Picture(plots.calibration_picture(found, styles, ACTUAL, report.told), legend, {"found": found, "few": FEW})


def _recall(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    held_out = report.fold.held_out.matrix
    if not held_out.nnz or not report.ranks:
        return None
    ranked = [model for model in report.models if model in report.top]
    if not ranked:
        return None
    bounded = ranked if len(ranked) <= BANDS else ranked[:1]
    bands = {model: recall_by_k(report.top[model], held_out, bounded=model in bounded) for model in ranked}
    return Picture(plots.recall_picture(bands, styles), _legend(bands, styles), {"all_banded": bounded == ranked})


def _gain(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    """Picture the best models' gains over the baseline, or over the weakest model where there is no baseline."""
    values = report.user_values.dropna(how="all")
    if len(values.columns) < 2 or values.empty:
        return None
    baseline = report.baseline if report.baseline in values else values.columns[-1]
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
    if not len(consumed) or not report.ranks:
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


def _maps(report: ReportInput) -> dict[str, Picture | None]:
    """Picture users and items, each in the embedding of the best model that has one which can be drawn.

    A genre has the same colour in both.
    """
    found = {
        "users": _lay_out(report, report.user_embeddings, lambda vectors: user_map(vectors, report.fold.history)),
        "items": _lay_out(
            report, report.item_embeddings, lambda vectors: item_map(vectors, report.train, report.item_labels)
        ),
    }
    genres = genres_of([one for _, one in filter(None, found.values())], SERIES)
    dimensions = {"users": report.user_embeddings, "items": report.item_embeddings}
    pictures: dict[str, Picture | None] = dict.fromkeys(found)
    for things, one in found.items():
        if one is not None:
            model, shown = one[0], with_genres(one[1], genres)
            styles = _map_styles(shown, genres)
            facts = {"model": model, "map": shown, "dimension": dimensions[things][model].shape[1]}
            legend = list(zip(shown.groups, styles, strict=True))
            pictures[things] = Picture(plots.map_picture(shown, styles, things), legend, facts)
    return pictures


def _lay_out(
    report: ReportInput,
    embeddings: Mapping[str, NDArray[np.float32]],
    lay_out: Callable[[NDArray[np.float32]], PointMap | None],
) -> tuple[str, PointMap] | None:
    """Return the best model whose embedding can be drawn, and its map."""
    for model in report.models:
        found = lay_out(embeddings[model]) if model in embeddings else None
        if found is not None:
            return model, found
    return None


def _map_styles(shown: PointMap, genres: Sequence[str]) -> list[Style]:
    if shown.ordered:
        return [Style(f"step-{number}", "", MARKS[number]) for number in range(len(shown.groups))]
    return [OTHERS if group == OTHER_GENRES else Style.of(genres.index(group)) for group in shown.groups]


def _odd(report: ReportInput, styles: Mapping[str, Style]) -> Picture | None:
    """Picture how much users surprise the best model that can say so, by the length of their history."""
    found = find_oddities(report)
    if found is None:
        return None
    legend = [("a user", replace(styles[found.model], mark="o")), ("named in the table", ODD)]
    facts = {"found": found, "of_values": found.model in report.predicted}
    return Picture(plots.oddity_picture(found, styles[found.model], ODD), legend, facts)


def _meanings(report: ReportInput) -> list[tuple[str, Markup]]:
    """Return each metric of the tables with its formula, as its function's docstring gives it."""
    functions: Mapping[str, Any] = {**PER_USER, **VALUES, **CATALOGUE}
    names = dict.fromkeys(str(name) for name in report.metrics["metric"])
    docs = {name: inspect.getdoc(functions[name]) or "" for name in names}
    return [
        (metric_label(name), _typeset(doc.split("\n\n")[0].replace("\n", " "))) for name, doc in docs.items() if doc
    ]


def _typeset(formula: str) -> Markup:
    """Lower what stands below a letter: hit_r, x_ui, Σ_{r≤k}, Σ_{i∈H_u}."""
    lowered = re.sub(r"_(\w{1,2})\b", r"<sub>\1</sub>", str(escape(formula)))
    return Markup(re.sub(r"_\{([^}]*)\}", r"<sub>\1</sub>", lowered))
