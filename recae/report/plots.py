"""The report's pictures, as inline SVG.

No picture holds a word that came from the data: names stand in the page's own legends, where they wrap, are escaped
and find their glyphs. Each colour of a picture is one of PAINT's, and becomes a variable of the page's style sheet,
so that the pictures follow the reader's light or dark theme.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from recae.report.curves import best_epoch
from recae.report.measures import Band, UserMap
from recae.report.oddities import Oddities

PAINT: Mapping[str, tuple[str, str]] = {
    "paper": ("#fdfcf9", "#171614"),
    "ink": ("#211f1c", "#ece9e2"),
    "muted": ("#6a655d", "#a39d92"),
    "grid": ("#e4e0d8", "#33302b"),
    "series-0": ("#212b74", "#d3b5ff"),
    "series-1": ("#dd7900", "#d46811"),
    "series-2": ("#00605e", "#80e586"),
    "series-3": ("#bf7cb9", "#fbd400"),
    "series-4": ("#9a3e05", "#056cca"),
    "series-5": ("#0a90f8", "#d8f6ed"),
    "series-6": ("#5c180f", "#9b5842"),
    "series-7": ("#889064", "#726f89"),
    "step-0": ("#5f97c6", "#3b6fa8"),
    "step-1": ("#3b76b0", "#5c9bd6"),
    "step-2": ("#22528a", "#92c4ee"),
    "step-3": ("#0f2f59", "#d3e9fb"),
}
"""Every colour of the page and its pictures: on light, on dark.

The series were searched for to stay far apart for normal, red-, green- and blue-blind eyes alike.
"""

SERIES = 8
DASHES = ("", "6 2.5", "2 2", "8 2 2 2")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 460
BANDS = 3
"""How many lines may each have a shaded band."""

BASE: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 12,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": PAINT["muted"][0],
    "axes.labelcolor": PAINT["muted"][0],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": PAINT["grid"][0],
    "grid.linewidth": 0.8,
    "text.color": PAINT["ink"][0],
    "xtick.color": PAINT["muted"][0],
    "ytick.color": PAINT["muted"][0],
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.8,
    "lines.scale_dashes": False,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


@dataclass(frozen=True)
class Style:
    """How one series is drawn: the same colour, dashes and mark in every picture and legend."""

    paint: str
    dash: str
    mark: str

    @classmethod
    def of(cls, number: int) -> "Style":
        """Return the style of the series with this number; colours repeat after eight, with other dashes."""
        return cls(f"series-{number % SERIES}", DASHES[number // SERIES % len(DASHES)], MARKS[number % SERIES])

    @property
    def colour(self) -> str:
        """The colour to draw with; it becomes a variable."""
        return PAINT[self.paint][0]

    @property
    def outline(self) -> str:
        """The mark as an SVG path around the origin, five units to each side, for a legend."""
        marker = MarkerStyle(self.mark)
        path = marker.get_path().transformed(marker.get_transform())
        corners: NDArray[np.float64] = np.asarray(path.to_polygons()[0]) * [10, -10]
        return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in corners) + "Z"

    @property
    def line(self) -> str | tuple[float, tuple[float, ...]]:
        """The dashes, as matplotlib wants them."""
        return (0.0, tuple(float(part) for part in self.dash.split())) if self.dash else "-"


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
    return _picture("learning", draw, "; ".join(said))


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
    return _picture("loss", draw, "; ".join(said), height=max(300, 95 * len(losses)))


def recall_picture(bands: Mapping[str, Band], styles: Mapping[str, Style]) -> Markup:
    """Draw recall@k over k, a line a model; the 95 % interval of each where there are few, else of the best alone."""
    banded = list(bands)[: len(bands) if len(bands) <= BANDS else 1]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model, band in bands.items():
            style = styles[model]
            if model in banded:
                axes.fill_between(
                    band.x, band.y - band.margin, band.y + band.margin, color=style.colour, alpha=0.15, linewidth=0
                )
            axes.plot(band.x, band.y, color=style.colour, linestyle=style.line, marker="o" if len(band.x) == 1 else "")
        axes.set_ylim(bottom=0)
        _ratio_axis(axes, max(band.x[-1] for band in bands.values()), "k")

    said = [f"{model} finds {band.y[-1]:.1%} at k = {band.x[-1]:.0f}" for model, band in bands.items()]
    return _picture("recall", draw, "; ".join(said))


def gain_picture(bands: Mapping[str, Band], bins: Sequence[str], styles: Mapping[str, Style]) -> Markup:
    """Draw the mean gain in each bin of history lengths, with its 95 % interval, a mark a model."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=PAINT["muted"][0], linewidth=1)
        offsets = np.linspace(-0.28, 0.28, len(bands)) if len(bands) > 1 else np.zeros(1)
        for offset, (model, band) in zip(offsets, bands.items(), strict=True):
            style = styles[model]
            axes.errorbar(
                band.x + offset, band.y, np.nan_to_num(band.margin), fmt=style.mark, color=style.colour,
                markersize=6, elinewidth=1.4, markeredgewidth=0,
            )  # fmt: skip
        axes.set_xlim(-0.5, len(bins) - 0.5)
        axes.set_xticks(range(len(bins)), bins)
        axes.tick_params(axis="x", size=0)
        axes.set_xlabel("items in the user's history")

    said = [f"{model}: " + ", ".join(f"{y:+.4f}" for y in band.y) for model, band in bands.items()]
    return _picture("gain", draw, f"For histories of {', '.join(bins)} items, " + "; ".join(said))


def popularity_picture(lines: Mapping[str, Band], consumed: Band, styles: Mapping[str, Style]) -> Markup:
    """Draw what share of recommendations the most popular items take, against what users took of their own accord."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model, band in lines.items():
            axes.plot(band.x, band.y, color=styles[model].colour, linestyle=styles[model].line)
        axes.plot(consumed.x, consumed.y, color=PAINT["ink"][0], linewidth=3)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        _ratio_axis(axes, consumed.x[-1], "the most popular items")

    said = [f"{model} {_half(band)}" for model, band in lines.items()]
    alt = f"Half of what was consumed lies among the {_half(consumed)} most popular items; of what is recommended: "
    return _picture("popularity", draw, alt + ", ".join(said))


def map_picture(users: UserMap, styles: Sequence[Style]) -> Markup:
    """Draw users as points on their first two principal components, a colour and a mark a group."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, style in enumerate(styles):
            inside = users.points[users.group == number]
            axes.plot(
                inside[:, 0], inside[:, 1], style.mark, color=style.colour, alpha=0.75, markersize=5, markeredgewidth=0
            )
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xticks([])
        axes.set_yticks([])

    sizes = np.bincount(users.group, minlength=len(users.groups))
    said = [f"{size} users: {group}" for group, size in zip(users.groups, sizes, strict=True)]
    return _picture("map", draw, f"{len(users.points)} points. " + "; ".join(said), height=400)


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
        _ratio_axis(axes, found.lengths.max(), "items in the user's history")
        axes.set_xlim(left=max(1, 0.9 * found.lengths.min()))

    said = [f"{user.history_length} items, {user.z:.1f} spreads above" for user in found.oddest]
    return _picture("odd", draw, f"{len(found.lengths)} users; the oddest: {'; '.join(said)}")


def _half(band: Band) -> str:
    return f"{band.x[min(int(np.searchsorted(band.y, 0.5)), len(band.x) - 1)]:,.0f}"


def _ratio_axis(axes: Axes, end: float, label: str) -> None:
    """Let the x axis run from 1 to `end` in even ratios, with round numbers at the ticks."""
    ticks = [step * 10**power for power in range(len(str(int(end)))) for step in (1, 2, 5)]
    if end > 200:
        ticks = [tick for tick in ticks if str(tick).startswith("1")]
    axes.set_xscale("log")
    axes.set_xlim(1 if end > 1 else 0.5, max(end, 2))
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= end]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.0f}"))
    axes.set_xlabel(label)


def _picture(name: str, draw: Callable[[Figure], None], alt: str, *, height: int = 300) -> Markup:
    """Draw on a figure WIDTH × height and return it as SVG to stand inside a page, the same bytes every time."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(BASE)
        mpl.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(file.getvalue(), alt)


def _inline(svg: str, alt: str) -> Markup:
    """Make matplotlib's SVG document part of a page: no prologue, no idle ids, short numbers, the page's colours."""
    body = svg[svg.index("<g id=") :]
    box = re.search(r'viewBox="([^"]*)"', svg)
    size = box[1] if box else ""
    variables = {light: f"var(--{name})" for name, (light, _) in PAINT.items()}
    wanted = set(re.findall(r"#([\w.-]+)[\")]", body))
    body = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda colour: variables[colour[0]], body)
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in wanted else "", body)
    body = re.sub(r"(\d\.\d\d)\d+", r"\1", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"| font-family: [^;]*;', "", body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href")
    return Markup(f'<svg role="img" viewBox="{size}" aria-label="{escape(alt)}">\n{body}')
