"""The report's pictures, as inline SVG: see `recae.report.drawing`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from recae.ranges import Choices, Span
from recae.report.calibration import FEW, Calibration
from recae.report.curves import best_epoch
from recae.report.drawing import PAINT, ROOM, Style, picture, ratio_axis, ratio_axis_around, ratio_ticks
from recae.report.maps import PointMap
from recae.report.measures import Band
from recae.report.oddities import Oddities
from recae.report.trials import BEST, STYLES, Tried, said

LENGTH_STEPS, LIKENESS_STEPS = 30, 50
SMALL = 300, 210
"""How large the pictures are that stand three in a row."""

SMALL_CROWD, ALONE = 0.22, 0.2
"""Of the width of a range: how far ticks stand apart there, and how far what has no place on it stands before it."""


def learning_picture(curves: Mapping[str, pd.Series], styles: Mapping[str, Style]) -> Markup:
    """Draw a validation metric by epoch, a line a model, its best epoch marked."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model, values in curves.items():
            style = styles[model]
            axes.plot(values.index, values, color=style.colour, linestyle=style.line)
            best = best_epoch(values)
            axes.plot(
                best, values[best], "o", markersize=8, color=style.colour, markeredgecolor=PAINT["paper"][0], zorder=3
            )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        # Steps of 2.5 would be labelled with one digit too few.
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))

    said = [
        f"{model} is best at epoch {best_epoch(values)} with {values[best_epoch(values)]:.4f}"
        for model, values in curves.items()
    ]
    return picture("learning", draw, "; ".join(said))


def loss_picture(losses: Mapping[str, pd.Series], styles: Mapping[str, Style]) -> Markup:
    """Draw the training loss by epoch, a strip a model: losses of different models have no common scale."""

    def draw(figure: Figure) -> None:
        strips = figure.subplots(len(losses), squeeze=False, sharex=True)[:, 0]
        for axes, (model, values) in zip(strips, losses.items(), strict=True):
            style = styles[model]
            axes.plot(
                values.index, values, color=style.colour, linestyle=style.line, marker="o" if len(values) == 1 else ""
            )
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(3))
        strips[-1].set_xlabel("epoch")

    said = [f"{model} goes from {values.iloc[0]:.4g} to {values.iloc[-1]:.4g}" for model, values in losses.items()]
    return picture("loss", draw, "; ".join(said), height=max(300, 95 * len(losses)))


def recall_picture(bands: Mapping[str, Band], styles: Mapping[str, Style]) -> Markup:
    """Draw recall@k over k, a line a model, and the 95 % intervals of those that have them."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model, band in bands.items():
            style = styles[model]
            if np.isfinite(band.low).any():
                axes.fill_between(band.x, band.low, band.high, color=style.colour, alpha=0.15, linewidth=0)
            axes.plot(band.x, band.y, color=style.colour, linestyle=style.line, marker="o" if len(band.x) == 1 else "")
        axes.set_ylim(bottom=0)
        ratio_axis(axes, max(band.x[-1] for band in bands.values()), "k")

    said = [f"{model} finds {band.y[-1]:.1%} at k = {band.x[-1]:.0f}" for model, band in bands.items()]
    return picture("recall", draw, "; ".join(said))


def gain_picture(bands: Mapping[str, Band], bins: Sequence[str], styles: Mapping[str, Style]) -> Markup:
    """Draw the mean gain in each bin of history lengths, with its 95 % interval, a mark a model."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=PAINT["muted"][0], linewidth=1)
        offsets = np.linspace(-0.28, 0.28, len(bands)) if len(bands) > 1 else np.zeros(1)
        for offset, (model, band) in zip(offsets, bands.items(), strict=True):
            style = styles[model]
            _whiskers(axes, band.x + offset, band, style)
            axes.plot(band.x + offset, band.y, style.mark, color=style.colour, markersize=6, markeredgewidth=0)
        axes.set_xlim(-0.5, len(bins) - 0.5)
        axes.set_xticks(range(len(bins)), bins)
        axes.tick_params(axis="x", size=0)
        axes.set_xlabel("items in the user's history")

    said = [f"{model}: " + ", ".join(f"{y:+.4f}" for y in band.y) for model, band in bands.items()]
    return picture("gain", draw, f"For histories of {', '.join(bins)} items, " + "; ".join(said))


def _whiskers(axes: Axes, x: NDArray[np.float64], band: Band, style: Style) -> None:
    """Draw the intervals that there are as upright lines."""
    some = np.isfinite(band.low)
    axes.vlines(x[some], band.low[some], band.high[some], color=style.colour, linewidth=1.4, clip_on=False)


def popularity_picture(lines: Mapping[str, Band], consumed: Band, styles: Mapping[str, Style]) -> Markup:
    """Draw what share of recommendations the most popular items take, against what users took of their own accord."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model, band in lines.items():
            axes.plot(band.x, band.y, color=styles[model].colour, linestyle=styles[model].line)
        axes.plot(consumed.x, consumed.y, color=PAINT["ink"][0], linewidth=3)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        ratio_axis(axes, consumed.x[-1], "the most popular items")

    said = [f"{model} {_half(band)}" for model, band in lines.items()]
    alt = f"Half of what was consumed lies among the {_half(consumed)} most popular items; of what is recommended: "
    return picture("popularity", draw, alt + ", ".join(said))


def map_picture(shown: PointMap, styles: Sequence[Style], things: str) -> Markup:
    """Draw users or items as points, a colour and a mark a group, and the number of each that is named."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, style in enumerate(styles):
            inside = shown.points[shown.group == number]
            axes.plot(
                inside[:, 0], inside[:, 1], style.mark, color=style.colour, alpha=0.75, markersize=5, markeredgewidth=0
            )
        for number, (row, _) in enumerate(shown.named, 1):
            x, y = shown.points[row]
            axes.plot(x, y, "o", markersize=15, color=PAINT["paper"][0], markeredgecolor=PAINT["ink"][0], zorder=3)
            axes.text(x, y, str(number), fontsize=9.5, ha="center", va="center_baseline", zorder=4)
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xticks([])
        axes.set_yticks([])

    sizes = np.bincount(shown.group, minlength=len(shown.groups))
    said = [f"{size} {things}: {group}" for group, size in zip(shown.groups, sizes, strict=True)]
    return picture(f"map of {things}", draw, f"{len(shown.points)} points. " + "; ".join(said), height=400)


def oddity_picture(found: Oddities, style: Style, odd: Style) -> Markup:
    """Draw users as points by length of history and surprise, what is usual as a line, two spreads as a band."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        low, high = found.usual - 2 * found.spread, found.usual + 2 * found.spread
        axes.fill_between(found.at, low, high, color=PAINT["muted"][0], alpha=0.15, linewidth=0)
        named = len(found.oddest)
        axes.plot(
            found.lengths[named:], found.surprise[named:], "o", color=style.colour, alpha=0.6, markersize=4,
            markeredgewidth=0,
        )  # fmt: skip
        axes.plot(found.at, found.usual, color=PAINT["ink"][0])
        axes.plot(found.lengths[:named], found.surprise[:named], odd.mark, color=odd.colour, markersize=7)
        axes.set_ylabel("surprise (nats)")
        ratio_axis_around(axes, int(found.lengths.min()), int(found.lengths.max()), "items in the user's history")

    said = [f"{user.history_length} items, {user.z:.1f} spreads above" for user in found.oddest]
    return picture("odd", draw, f"{len(found.lengths)} users; the oddest: {'; '.join(said)}")


def calibration_picture(
    found: Calibration, styles: Mapping[str, Style], actual: Style, told: Callable[[float], str]
) -> Markup:
    """Draw mean actual values over mean predicted ones, the line where both are equal, and how many there are."""
    ends = found.edges[0], found.edges[-1]

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        above.plot(ends, ends, color=PAINT["muted"][0], linewidth=1)
        below.stairs(found.counts, found.edges, color=actual.colour, linewidth=1.4)
        below.stairs(found.counts, found.edges, color=actual.colour, alpha=0.12, fill=True, linewidth=0)
        for one in reversed(found.models):
            style = styles[one.model]
            _whiskers(above, one.means.x, one.means, style)
            for few, face in ((False, style.colour), (True, PAINT["paper"][0])):
                inside = (one.counts > 0) & ((one.counts < FEW) == few)
                if inside.any():  # the layout makes room for a mark that is nowhere, far below
                    above.plot(
                        one.means.x[inside], one.means.y[inside], style.mark, color=style.colour, markersize=6,
                        markerfacecolor=face, clip_on=False,
                    )  # fmt: skip
            below.stairs(one.counts, found.edges, color=style.colour, linewidth=1.8)
        above.set_ylabel("mean actual value")
        above.grid(visible=True, axis="both")
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        below.set_ylabel("how many")
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        below.set_xlabel("predicted value; actual value for the filled outline")

    best = found.models[0]
    said = [
        f"{told(x)}: {told(y)} ({count:,})"
        for x, y, count in zip(best.means.x, best.means.y, best.counts, strict=True)
        if count
    ]
    alt = f"What {best.model} predicts on average, what the actual values there are, and how many: {'; '.join(said)}"
    return picture("calibration", draw, alt, height=480)


def _half(band: Band) -> str:
    return f"{band.x[min(int(np.searchsorted(band.y, 0.5)), len(band.x) - 1)]:,.0f}"


def shares_picture(real: NDArray[np.float64], made_up: NDArray[np.float64], style: Style) -> Markup:
    """Draw which share of made-up users has each item over which share of real ones does, and where both are equal."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ends = 0.7 * float(min(real.min(), made_up.min())), min(1.0, 1.4 * float(max(real.max(), made_up.max())))
        axes.plot(ends, ends, color=PAINT["muted"][0], linewidth=1)
        axes.plot(real, made_up, style.mark, color=style.colour, alpha=0.4, markersize=4, markeredgewidth=0)
        for axis, say in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            say("log")
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        axes.set_aspect("equal")
        axes.grid(visible=True, axis="both")
        axes.set_xlabel("of the real users")
        axes.set_ylabel("of those made up")

    alt = f"{len(real)} items, on the line where as many made-up users have them as real ones, or near it"
    return picture("shares", draw, alt, height=380)


def lengths_picture(lengths: Mapping[str, NDArray[np.int64]], styles: Mapping[str, Style]) -> Markup:
    """Draw how long histories are, as the share of the users with each length, an outline a side.

    The shares are averaged over steps of about even ratios.
    """
    edges = length_steps(*(edge(edge(side) for side in lengths.values()) for edge in (min, max)))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _outlines(axes, lengths, edges, styles, per=np.diff(edges))
        ratio_axis(axes, edges[-1], "items in the user's history")
        axes.set_xlim(left=edges[0])

    said = [f"{name}: half have {np.median(side):.0f} items or more" for name, side in lengths.items()]
    return picture("lengths", draw, "; ".join(said))


def length_steps(low: int, high: int) -> NDArray[np.float64]:
    """Return the edges of steps of about even ratios that hold the whole numbers from `low` to `high`.

    They lie half-way between whole numbers, so that a step of one number is as wide as that number.
    """
    first = np.unique(np.geomspace(low, high + 1, LENGTH_STEPS + 1).round())
    return np.asarray(first - 0.5, dtype=np.float64)


def nearness_picture(likeness: Mapping[str, NDArray[np.float64]], styles: Mapping[str, Style]) -> Markup:
    """Draw how near users come to the nearest real one, as shares of them by Jaccard similarity, an outline a side."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _outlines(axes, likeness, np.linspace(0, 1, LIKENESS_STEPS + 1), styles)
        axes.set_xlim(0, 1)
        axes.set_xlabel("Jaccard similarity to the nearest: 1 is a copy")

    said = [f"{name}: at most {max(side):.2f}" for name, side in likeness.items()]
    return picture("nearness", draw, "; ".join(said))


def _outlines(
    axes: Axes,
    sides: Mapping[str, NDArray[Any]],
    edges: NDArray[np.float64],
    styles: Mapping[str, Style],
    per: NDArray[np.float64] | float = 1.0,
) -> None:
    """Draw distributions as outlines: the share of each side's figures in each step, divided by `per`."""
    for name, side in sides.items():
        share = np.histogram(side, edges)[0] / len(side) / per
        axes.stairs(share, edges, color=styles[name].colour, linewidth=1.8)
        axes.stairs(share, edges, color=styles[name].colour, alpha=0.12, fill=True, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


def trials_picture(tried: Tried) -> Markup:
    """Draw the value of each trial, in their order, and the best of the complete ones so far as a line."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        numbers = np.arange(len(tried.states))
        axes.plot(numbers, tried.so_far, color=PAINT["muted"][0], drawstyle="steps-post", linewidth=1.4)
        _trial_marks(axes, tried, numbers)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))

    return picture(f"trials {tried.model}", draw, f"{len(tried.states)} trials; {_said_of_best(tried)}")


def curves_picture(tried: Tried) -> Markup:
    """Draw the value after each epoch of all trials, the best one's over the others."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (state, curve) in enumerate(zip(tried.states, tried.curves, strict=True)):
            foremost = number == tried.best
            axes.plot(
                np.arange(1, len(curve) + 1), curve, color=BEST.colour if foremost else STYLES[state].colour,
                alpha=1 if foremost else 0.35, linewidth=2.2 if foremost else 1, zorder=3 if foremost else 2,
                marker="o" if len(curve) == 1 else "",
            )  # fmt: skip
        _up_to_the_edge(axes, tried)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    alt = f"{sum(len(curve) > 0 for curve in tried.curves)} trainings; {_said_of_best(tried)}"
    return picture(f"curves {tried.model}", draw, alt, height=SMALL[1], width=SMALL[0])


def slice_picture(tried: Tried, name: str) -> Markup:
    """Draw each trial's value over one hyper-parameter: along its range, or at each of the choices."""
    settings, one = list(tried.settings[name]), tried.ranges.get(name)
    numbers = [setting for setting in settings if _is_number(setting)]
    if one is None and len(numbers) == len(settings):
        one = Span(min(numbers), max(numbers))
    places = [] if isinstance(one, Span) else in_order([*(one.plain() if isinstance(one, Choices) else ()), *settings])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if isinstance(one, Span):
            at = _along(axes, one, settings)
        else:
            at = np.array([places.index(said(setting)) for setting in settings], dtype=np.float64)
            axes.set_xticks(range(len(places)), places)
            axes.set_xlim(-0.5, len(places) - 0.5)
        _trial_marks(axes, tried, at)
        axes.yaxis.set_major_locator(MaxNLocator(4))

    over = f"from {said(min(numbers))} to {said(max(numbers))}" if isinstance(one, Span) and numbers else ""
    alt = f"{tried.metric} by {name}: {over or ', '.join(in_order(settings))}"
    return picture(f"{name} of {tried.model}", draw, alt, height=SMALL[1], width=SMALL[0])


def in_order(settings: Sequence[Any]) -> list[str]:
    """Return settings as people read them, each once: numbers by size, whatever else by name."""
    numbers = {said(one): one for one in settings if _is_number(one)}
    names = {said(one) for one in settings} - set(numbers)
    return [*sorted(numbers, key=lambda one: numbers[one]), *sorted(names)]


def _is_number(setting: Any) -> bool:
    return isinstance(setting, int | float) and not isinstance(setting, bool)


def _along(axes: Axes, span: Span, settings: Sequence[Any]) -> NDArray[np.float64]:
    """Let the x axis run along a range, and on to what was tried outside it; return where the settings stand.

    What has no place on it, as the recipe's own setting may be none, or zero where magnitudes are alike, stands before
    it by itself.
    """
    forth, back = (math.log, math.exp) if span.log else (float, float)
    has_place = [_is_number(one) and (one > 0 or not span.log) for one in settings]
    tried = [float(one) for one, has in zip(settings, has_place, strict=True) if has]
    low, high = min(span.low, *tried), max(span.high, *tried)
    start, end = forth(low), forth(high)
    width = end - start or 1.0
    if span.log:
        axes.set_xscale("log")
        ticks = ratio_ticks(low, high, SMALL_CROWD * width)
    else:
        steps = MaxNLocator(4, steps=[1, 2, 5, 10], integer=all(isinstance(one, int) for one in (span.low, span.high)))
        near = 1e-9 * width
        ticks = [float(tick) for tick in steps.tick_values(low, high) if low - near <= tick <= high + near]
    labels = [said(float(tick)) for tick in ticks]
    if not all(has_place):
        start -= ALONE * width
        names = in_order([one for one, has in zip(settings, has_place, strict=True) if not has])
        ticks, labels = [back(start), *ticks], [", ".join(names), *labels]
    axes.set_xlim(back(start - ROOM * width), back(end + ROOM * width))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    return np.array([float(one) if has else back(start) for one, has in zip(settings, has_place, strict=True)])


def _trial_marks(axes: Axes, tried: Tried, at: NDArray[Any]) -> None:
    """Draw a mark a trial, those without a value or one that is too bad at the edge."""
    edge = _up_to_the_edge(axes, tried)
    beyond = (
        tried.metric.sign * np.nan_to_num(tried.figures, nan=-tried.metric.sign * np.inf) < tried.metric.sign * edge
    )
    shown = np.where(beyond, edge, tried.figures)
    for state in tried.counts:
        rows = [number for number, one in enumerate(tried.states) if one == state and number != tried.best]
        style = STYLES[state]
        axes.plot(
            at[rows], shown[rows], style.mark, color=style.colour, alpha=0.8, markersize=6, markeredgewidth=0,
            clip_on=False,
        )  # fmt: skip
    if tried.best is not None:
        axes.plot(
            at[tried.best], shown[tried.best], BEST.mark, color=BEST.colour, markersize=9, zorder=4,
            markeredgecolor=PAINT["paper"][0], clip_on=False,
        )  # fmt: skip


def _up_to_the_edge(axes: Axes, tried: Tried) -> float:
    """Let the y axis end at the worst value that is drawn where it is, or a little beyond the worst; return where."""
    values = tried.figures[np.isfinite(tried.figures)]
    if not len(values):
        return 0.0
    sign, room = tried.metric.sign, 0.06 * float(np.ptp(values)) or 0.01 * abs(float(values[0])) or 0.01
    top = sign * float((sign * values).max())
    edge = sign * float((sign * values).min()) - sign * room if tried.edge is None else tried.edge
    room = 0.06 * abs(top - edge)
    axes.set_ylim(*sorted((edge, top + sign * room)))
    return edge


def _said_of_best(tried: Tried) -> str:
    return "none has a value" if tried.best is None else f"the best is trial {tried.best} with {tried.best_value:.4f}"
